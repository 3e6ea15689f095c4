"""What is on record is compared with what a run saw, and written on request only."""

from itertools import product
from types import SimpleNamespace

import pytest
from cases import CASES
from table import CHECKS, KINDS, PAGE, RECORD, ConformanceTable, Outcomes

ROWS = ['First', 'Second']
PLACES = list(product(range(len(ROWS)), KINDS, CHECKS))


def report(row, kind, check, passed=True, **properties):
    place = [ROWS[row], row, len(ROWS), kind, check]
    return SimpleNamespace(
        user_properties=[('conformance', place), *properties.items()],
        when='call',
        failed=not passed,
        passed=passed,
    )


@pytest.fixture
def files(tmp_path):
    return tmp_path / 'page.md', tmp_path / 'record.json'


def run(files, *reports, write=False):
    """The exit status of a session that heard these reports, and what it said at its end."""
    table = ConformanceTable(write, *files)
    for one in reports:
        table.pytest_runtest_logreport(one)
    session, said = SimpleNamespace(exitstatus=0), []
    table.pytest_sessionfinish(session)
    table.pytest_terminal_summary(
        SimpleNamespace(section=lambda *args, **kwargs: None, line=said.append)
    )
    return session.exitstatus, said


def whole():
    """Reports of a matrix in which one method refuses to merge on one backbone."""
    for place in PLACES:
        refuses = place == (1, 'swin', 'merge')
        yield report(*place, **(dict(cell='refuses', note='too wide') if refuses else {}))


def test_the_page_is_what_is_on_record():
    outcomes = Outcomes.read(RECORD)
    assert outcomes.methods == [case.name for case in CASES]
    assert PAGE.read_text() == outcomes.page(), 'write it anew by `make conformance`'
    assert RECORD.read_text() == outcomes.text()


def test_what_is_written_is_what_was_seen(files):
    assert run(files, *whole(), write=True) == (0, [])
    page = files[0].read_text()
    assert f'| First |{" ✓ |" * len(CHECKS)}\n' in page
    assert '| refuses (1) |' in page and page.count('refuses') == 1
    assert page.endswith('1. MMPretrain Swin: too wide\n')
    assert run(files, *whole()) == (0, [])


@pytest.mark.parametrize(
    ('seen', 'told'),
    [
        (report(0, 'vit', 'merge', cell='no'), "('✓', '') is on record, not ('no', '')"),
        (report(1, 'swin', 'merge'), "('refuses', 'too wide') is on record, not ('✓', '')"),
    ],
)
def test_one_check_that_says_something_else_fails(seen, told, files):
    run(files, *whole(), write=True)
    before = [file.read_text() for file in files]
    status, (advice, line) = run(files, seen)
    assert status == 1
    assert advice == f'{files[1]}: the run saw something else; write it anew by `make conformance`'
    assert line.endswith(told)
    assert [file.read_text() for file in files] == before


def test_a_method_without_a_record_fails(files):
    status, said = run(files, report(0, 'vit', 'merge'))
    assert status == 1
    assert said[1] == "First, merge, vit: None is on record, not ('✓', '')"
    assert not files[0].exists() and not files[1].exists()


def test_a_check_in_two_forms_is_what_the_worse_said(files):
    forms = report(0, 'vit', 'copies', cell='no'), report(0, 'vit', 'copies')
    for several in (forms, forms[::-1]):
        run(files, *whole(), *several, write=True)
        assert run(files, *several) == (0, [])


@pytest.mark.parametrize('write', [False, True])
def test_a_check_that_fails_says_nothing_of_the_page(write, files):
    run(files, *whole(), write=True)
    before = [file.read_text() for file in files]
    failing = report(0, 'vit', 'copies', passed=False)
    assert run(files, *whole(), failing, write=write) == (0, [])
    assert [file.read_text() for file in files] == before


def test_a_part_of_the_matrix_is_not_written(files):
    assert run(files, *list(whole())[1:], write=True) == (0, [])
    assert not files[0].exists() and not files[1].exists()
