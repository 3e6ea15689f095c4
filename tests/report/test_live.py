"""The page of a sweep that runs: what it shows when, and that it is written at once."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from report.made import final, select, whole

from gleam_mm.report import Study, live, trials
from gleam_mm.sweep.cells import COMPLETE, RUNNING, WAITING

SMALL = whole(datasets=['vtab-cifar'], seeds=(0,))


def words(page):
    """What a person can read on a page."""
    return re.sub(r'<style>.*?</style>|<[^>]*>', ' ', page, flags=re.DOTALL)


def grid(method, accuracies, **more):
    """Selection trainings of a method; those without an accuracy wait."""
    return [
        select(method, accuracy=a, options={'alpha': i}, **more) for i, a in enumerate(accuracies)
    ]


@pytest.fixture
def choosing():
    """Two methods of which one still chooses, and the other was tested already."""
    return Study(
        'mine',
        [
            *grid('lora', [71.25, 73.5]),
            final('lora', accuracy=66.125),
            *grid('gleam-l', [81.75, None]),
            final('gleam-l', accuracy=None),
        ],
    )


def test_no_number_of_the_test_split_while_options_are_chosen(choosing):
    text = words(live.build(choosing, refresh=10))
    assert '73.5' in text and '81.8' in text  # the best of each on validation
    assert '66.1' not in text
    assert '71.2' not in text
    assert 'VTAB-1K, validation' in text
    assert 'test split stays closed' in text
    assert 'Table 1 of the paper' not in text  # nor the paper's, which are of the test split
    assert "the paper's" not in text.lower()


def test_of_several_seeds_a_point_the_mean_is_shown():
    lucky = grid('lora', [90.0, 70.0])
    steady = [replace(result, seed=1) for result in grid('lora', [20.5, 71.0])]
    waiting = grid('gleam-l', [None, None])
    text = words(live.build(Study('mine', [*lucky, *steady, *waiting]), refresh=10))
    assert '70.5' in text
    assert '90.0' not in text
    assert 'Of 2 pairs of a method and a dataset, 1 have' in text
    assert trials.choosing(Study('mine', [*lucky, *steady])).finals == [
        replace(result, phase='final', options={}) for result in (lucky[1], steady[1])
    ]


def test_test_results_once_all_are_chosen(choosing):
    done = grid('gleam-l', [81.75, 80.0])
    results = [r for r in choosing.results if (r.method, r.phase) != ('gleam-l', 'select')]
    text = words(live.build(Study('mine', [*results, *done]), refresh=10))
    assert '66.1' in text
    assert '73.5' not in text
    assert 'Table 1 of the paper' in text


def test_it_is_loaded_again_only_while_it_runs():
    refreshing = re.compile('<meta http-equiv="refresh" content="10">')
    assert refreshing.search(live.build(SMALL, refresh=10))
    assert not refreshing.search(live.build(SMALL))


def test_front_bars_curves_and_cost():
    text = words(live.build(whole(datasets=['vtab-cifar'])))
    for part in ('Accuracy against parameters', 'Accuracy by task', 'Training curves', 'Wall time'):
        assert part in text


def cell(key, state):
    return SimpleNamespace(job=SimpleNamespace(key=key), state=state)


@pytest.fixture
def page(tmp_path, monkeypatch):
    study = SMALL
    monkeypatch.setattr(live, 'of_sweep', lambda opened: study)
    monkeypatch.setattr(live, '_SHARE', 0)
    return live.LivePage(None, tmp_path)


def test_it_is_written_after_each_training_that_ends(page):
    with page:
        page.update([cell('a', RUNNING), cell('b', WAITING)])
        first = page.file.stat().st_ino
        page.update([cell('a', RUNNING), cell('b', RUNNING)])
        assert page.file.stat().st_ino == first
        page.update([cell('a', COMPLETE), cell('b', RUNNING)])
        assert page.file.stat().st_ino != first
        assert 'http-equiv="refresh"' in page.file.read_text()
    assert 'http-equiv="refresh"' not in page.file.read_text()
    assert [path.name for path in page.file.parent.iterdir()] == ['live.html']


def test_a_page_that_cannot_be_written_ends_no_sweep(page, capsys):
    page.file.mkdir()  # a folder in its place
    with page:
        page.update([cell('a', COMPLETE)])
        page.update([cell('a', COMPLETE), cell('b', COMPLETE)])
    assert capsys.readouterr().out.count('live.html: not written any more') == 1
