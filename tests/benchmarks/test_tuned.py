"""The page of MiniVTAB's second edition: of its own studies, with rates chosen for each task."""

import claims
import pytest
import records
import tuned
import writeup
from records import Record

FIRST, RIVALS, OTHERS = claims.TUNED


def row(phase, method, task, accuracy, rate, seed=0, study=FIRST, parameters=100):
    options = f'method=x,optim_wrapper.optimizer.lr={rate}'
    state = 'waiting' if accuracy is None else 'complete'
    return Record(
        study, phase, method, f'mini-{task}', seed, options, state, accuracy, parameters, 36.0
    )


TRAININGS = [
    row('select', 'gleam-l', 'land', 61.0, 0.003),
    row('select', 'gleam-l', 'land', 66.5, 0.01),
    row('select', 'convpass', 'land', 64.0, 0.003),
    row('final', 'gleam-l', 'land', 70.0, 0.01),
    row('final', 'gleam-l', 'land', 72.0, 0.01, seed=1),
    row('final', 'gleam-l', 'letters', 50.0, 0.01),
    row('final', 'convpass', 'land', 12.0, 0.003, parameters=44_288),
    row('final', 'lora', 'land', None, 0.003, study=RIVALS),
]


def lines(page, start):
    return [line for line in page.splitlines() if line.startswith(start)]


def test_accuracies_claims_and_rates_are_those_of_the_record():
    page = tuned.build(TRAININGS, {})
    assert lines(page, '| gleam-l |')[0] == '| gleam-l | 100 | 1 to 2 | 50.0 | 71.0 | 60.5 | — |'
    assert lines(page, '| convpass |')[0] == '| convpass | 44,288 | 1 | — | 12.0 | — | — |'
    assert lines(page, '| GLEAM-L is better than Convpass')[0].endswith(
        '| +58.0 | 1 of 1 | — | not decided |'
    )
    assert lines(page, '| gleam-l |')[-1] == '| gleam-l | — | 0.01 (66.5) |'
    assert lines(page, '| convpass |')[-1] == '| convpass | — | 0.003 (64.0) |'


def test_groups_have_means_where_all_tasks_are_there():
    whole = [
        row('final', 'fact', task.removeprefix('mini-'), 10.0 * place, 0.01)
        for place, task in enumerate(tuned.TASKS, 1)
    ]
    groups = tuned.build([*TRAININGS, *whole], {}).split('## Groups')[1].split('\n## ')[0]
    assert lines(groups, '| fact |') == ['| fact | 100 | 20.0 | 50.0 | 80.0 | 50.0 |']
    assert not lines(groups, '| gleam-l |')
    assert '## Groups' not in tuned.build(TRAININGS, {})


def test_a_rate_is_shown_with_the_mean_that_chose_it():
    other = row('select', 'gleam-l', 'land', 69.5, 0.01, seed=1)
    page = tuned.build([*TRAININGS, other], {})
    assert lines(page, '| gleam-l |')[-1] == '| gleam-l | — | 0.01 (68.0) |'


def test_what_ended_at_chance_and_what_is_missing_is_said():
    page = tuned.build(TRAININGS, {})
    assert '`convpass` | Land, seed 0 (12.0)' in page
    assert f'7 of 8 planned trainings are complete, and nothing is recorded of `{OTHERS}`' in page


def test_neither_edition_has_the_trainings_of_the_other(tmp_path):
    first = row('final', 'fact', 'land', 33.3, 0.01, study=claims.MAIN)
    records.write(tmp_path / records.CSV, [first, *TRAININGS])
    page = tuned.write(tmp_path).read_text()
    writeup.write(tmp_path)
    other = (tmp_path / writeup.PAGE).read_text()
    assert '| 33.3 |' not in page
    assert '| 33.3 |' in other
    assert '| 71.0 |' in page
    assert '| 71.0 |' not in other


def test_page_is_what_the_record_gives(tmp_path):
    for name in (records.CSV, records.STUDIES):
        (tmp_path / name).write_bytes((records.FOLDER / name).read_bytes())
    page = (records.FOLDER / tuned.PAGE).read_text()
    assert tuned.write(tmp_path).read_text() == page, (
        'make it again: python benchmarks/minivtab/page.py'
    )


@pytest.mark.parametrize('study', claims.TUNED)
def test_studies_are_sweeps(study):
    assert (records.FOLDER.parents[1] / 'configs' / 'sweeps' / f'{study}.py').is_file()
