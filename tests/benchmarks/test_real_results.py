"""The page of the real backbone's results, from a record that is written down here."""

import json

import pytest
import records
import results
from records import Record

ALL_NOTES = json.loads((results.HERE / records.STUDIES).read_text())
NOTES = {'real-a': ALL_NOTES['real-a']}


def row(phase, method, task, accuracy, rate, seed=0, parameters=100):
    options = f'optim_wrapper.optimizer.lr={rate}'
    return Record(
        'real-a',
        phase,
        method,
        f'real-{task}',
        seed,
        options,
        'complete',
        accuracy,
        parameters,
        9.0,
    )


TRAININGS = [
    row('select', 'gleam-t', 'cifar10', 61.0, 0.001),
    row('select', 'gleam-t', 'cifar10', 66.5, 0.01),
    row('select', 'lora', 'cifar10', 64.0, 0.003),
    row('final', 'gleam-t', 'cifar10', 70.0, 0.01),
    row('final', 'gleam-t', 'cifar10', 72.0, 0.01, seed=1),
    row('final', 'gleam-t', 'letters', 50.0, 0.01),
    row('final', 'lora', 'cifar10', 68.0, 0.003, parameters=147_456),
    row('final', 'lora', 'letters', 51.0, 0.003, parameters=147_456),
    row('final', 'fact', 'cifar10', 90.0, 0.003),
]


def cells(page, start):
    line = next(line for line in page.splitlines() if line.startswith(f'| {start} |'))
    return [cell.strip() for cell in line.strip('|').split('|')][1:]


def test_means_are_over_tasks_of_means_over_seeds():
    page = results.build(TRAININGS, NOTES)
    assert cells(page, 'method')[:5] == ['parameters', 'seeds', '*cifar10*', 'letters', 'mean']
    assert cells(page, 'gleam-t') == ['100', '1 to 2', '71.0', '50.0', '60.5', '—']
    assert cells(page, 'lora') == ['147,456', '1', '68.0', '51.0', '59.5', '—']
    assert cells(page, 'fact') == ['100', '1', '90.0', '—', '—', '—']  # last, as it lacks a task
    assert page.index('| gleam-t |') < page.index('| lora |') < page.index('| fact |')


def test_claims_compare_the_pairs_that_both_have():
    page = results.build(TRAININGS, NOTES)
    found = cells(page, 'GLEAM-T is better than LoRA of rank 8 on qkv')
    assert found[:2] == ['+0.5', '1 of 2'] and found[3] == 'not decided'
    assert cells(page, 'GLEAM-L is better than FacT')[3] == 'no data'


def test_rates_are_those_of_final_trainings_with_their_accuracy_on_val200():
    page = results.build(TRAININGS, NOTES)
    rates = page[page.index('## Learning rates') :]
    assert cells(rates, 'gleam-t')[0] == '0.01 (66.5)'
    assert cells(rates, 'lora')[0] == '0.003 (64.0)'


WHOLE = [
    row('final', method, task, start + place, 0.01)
    for method, start in (('lora', 60.0), ('gleam-t', 50.0))
    for place, task in enumerate(results.TASKS)
]
"""cifar10 60, signs 61, solar 62, land 63, letters 64, count 65, distance 66, orientation 67."""


def test_groups_are_means_over_their_tasks():
    page = results.build([*WHOLE, *(t for t in TRAININGS if t.method == 'fact')], NOTES)
    groups = page[page.index('## Groups') : page.index('## What was asked')]
    assert 'natural (cifar10, signs, letters)' in groups
    assert cells(groups, 'lora')[1:] == ['61.7', '62.5', '66.0', '63.4', '61.0', '65.0']
    assert groups.index('| lora |') < groups.index('| gleam-t |')
    assert 'fact' not in groups  # which lacks tasks
    assert '## Groups' not in results.build(TRAININGS, NOTES)


def test_trainings_at_chance_are_named():
    table = [
        row('final', 'full', 'orientation', 7.8, 0.01),  # of 16 classes: 6.25, three errors of 0.54
        row('final', 'full', 'orientation', 7.9, 0.01, seed=1),
        row('final', 'full', 'signs', 12.7, 0.01),  # 10, three errors of 0.92
        row('final', 'ssf', 'solar', 61.1, 0.01),  # the largest class has 57.45 % of it
        row('final', 'ssf', 'solar', 61.2, 0.01, seed=1),
    ]
    page = results.build(table, NOTES)
    found = page[page.index('## Trainings that ended at chance') : page.index('## What was asked')]
    assert '| `real-a` | `full` | orientation, seed 0 (7.8); signs, seed 0 (12.7) |' in found
    assert '| `real-a` | `ssf` | solar, seed 0 (61.1) |' in found
    assert 'at chance' not in results.build(TRAININGS, NOTES)


def test_commands_have_the_workers_that_trained():
    other = {'workers': 3, 'processor': 'Abacus', 'commit': 'abc1234'}
    page = results.build(TRAININGS, {**ALL_NOTES, 'real-a': {**ALL_NOTES['real-a'], **other}})
    assert 'configs/sweeps/real-a.py --workers 3\n' in page
    assert 'configs/sweeps/real-b.py --workers 2\n' in page
    assert 'python collect.py --workers 3 real-a\n' in page
    (told,) = (line for line in page.splitlines() if line.startswith('| `real-a` |'))
    assert 'Abacus' in told and 'abc1234' in told and '| 9 | 0 | 9 |' in told


@pytest.mark.parametrize('analysis', ['homogeneity', 'routing'])
def test_page_has_the_commands_of_its_analyses(analysis):
    page = (results.HERE / results.PAGE).read_text()
    command = page.split(f'tools/analyze.py {analysis} --split test --max-images 200 \\\n')[1]
    subjects = command.split('```')[0].replace('\\\n', ' ').split()
    content = json.loads((results.HERE / f'{analysis}.json').read_text())
    for told, subject in zip(subjects, content['subjects'], strict=True):
        name, _, rest = told.partition('=')
        config, checkpoint = rest.split(':')
        assert (name, checkpoint) == (subject['name'], subject['checkpoint'])
        assert config.endswith(f'/{subject["config"]}.py')


def test_page_is_what_the_record_gives(tmp_path):
    for path in results.HERE.iterdir():
        if path.suffix in ('.csv', '.json'):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    page = (results.HERE / results.PAGE).read_text()
    assert results.write(tmp_path).read_text() == page, (
        'make it again: cd benchmarks/real && PYTHONPATH=$PWD python collect.py'
    )


def test_a_record_without_final_trainings_makes_a_page():
    page = results.build([t for t in TRAININGS if t.phase == 'select'], NOTES)
    assert '## Accuracy' not in page and 'configs/sweeps/real-a.py' in page


def test_the_figure_is_over_the_tasks_that_the_headline_has():
    gleam_l = [row('final', 'gleam-l', 'cifar10', 60.0 + seed, 0.01, seed) for seed in range(3)]
    tasks, points = results.measured([*TRAININGS, *gleam_l])
    assert tasks == ['cifar10']  # gleam-l lacks letters
    found = {point.method: point for point in points}
    assert set(found) == {'gleam-t', 'gleam-l', 'lora', 'fact'}
    assert found['gleam-t'].accuracy == 71.0 and found['lora'].parameters == 147_456
    assert found['gleam-l'].accuracy == 61.0 and found['gleam-l'].deviation == 1.0
    assert found['fact'].deviation is None


def test_the_figure_takes_no_deviation_of_seeds_that_a_task_lacks():
    gleam_l = [row('final', 'gleam-l', task, 60.0, 0.01) for task in ('cifar10', 'letters')]
    tasks, points = results.measured([*TRAININGS, *gleam_l])
    assert tasks == ['cifar10', 'letters']
    of_t = next(point for point in points if point.method == 'gleam-t')
    assert of_t.accuracy == 60.5 and of_t.deviation is None


def test_without_the_headline_nothing_is_drawn():
    assert results.measured(TRAININGS) == ([], [])
