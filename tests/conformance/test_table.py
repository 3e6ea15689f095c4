"""The page is compared with a whole run, written on request only, and left alone otherwise."""

from itertools import product
from types import SimpleNamespace

import pytest
from table import CHECKS, KINDS, ConformanceTable

ROWS = ['First', 'Second']


def report(row, kind, check, passed=True):
    place = [ROWS[row], row, len(ROWS), kind, check]
    return SimpleNamespace(
        user_properties=[('conformance', place)], when='call', failed=not passed, passed=passed
    )


def run(file, write=False, leave_out=0, failing=0):
    """The exit status of a session that saw the matrix, and what it said at its end."""
    table = ConformanceTable(write, file)
    places = list(product(range(len(ROWS)), KINDS, CHECKS))
    for number, place in enumerate(places[leave_out:]):
        table.pytest_runtest_logreport(report(*place, passed=number >= failing))
    session, said = SimpleNamespace(exitstatus=0), []
    table.pytest_sessionfinish(session)
    table.pytest_terminal_summary(
        SimpleNamespace(section=lambda *args, **kwargs: None, line=said.append)
    )
    return session.exitstatus, said


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'page.md'


def test_a_stale_page_fails_and_is_left_alone(file):
    run(file, write=True)
    stale = file.read_text().replace('| Second | ✓ |', '| Second | no |')
    file.write_text(stale)
    status, said = run(file)
    assert status == 1
    assert said[0] == f'{file}: the run saw something else; write it anew by `make conformance`'
    changes = [line[:14] for line in said if line.startswith(('-| ', '+| '))]
    assert changes == ['-| Second | no', '+| Second | ✓ ']
    assert file.read_text() == stale


def test_a_page_that_is_missing_fails(file):
    status, said = run(file)
    assert status == 1
    assert '+| First | ✓ |' in ' '.join(said)
    assert not file.exists()


def test_a_page_that_was_written_by_the_same_run_passes(file):
    assert run(file, write=True) == (0, [])
    assert '| Second | ✓ | ✓ |' in file.read_text()
    assert run(file) == (0, [])


@pytest.mark.parametrize('part', [dict(leave_out=1), dict(failing=1)])
@pytest.mark.parametrize('write', [False, True])
def test_a_part_of_the_matrix_says_nothing_of_the_page(part, write, file):
    file.write_text('as it was')
    assert run(file, write, **part) == (0, [])
    assert file.read_text() == 'as it was'
