"""The page of the real backbone's results, from a record that is written down here."""

import results
from records import Record


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
    page = results.build(TRAININGS, ['real-a'])
    assert cells(page, 'method')[:5] == ['parameters', 'seeds', '*cifar10*', 'letters', 'mean']
    assert cells(page, 'gleam-t') == ['100', '1 to 2', '71.0', '50.0', '60.5', '—']
    assert cells(page, 'lora') == ['147,456', '1', '68.0', '51.0', '59.5', '—']
    assert cells(page, 'fact') == ['100', '1', '90.0', '—', '—', '—']  # last, as it lacks a task
    assert page.index('| gleam-t |') < page.index('| lora |') < page.index('| fact |')


def test_claims_compare_the_pairs_that_both_have():
    page = results.build(TRAININGS, ['real-a'])
    found = cells(page, 'GLEAM-T is better than LoRA of rank 8 on qkv')
    assert found[:2] == ['+0.5', '1 of 2'] and found[3] == 'not decided'
    assert cells(page, 'GLEAM-L is better than FacT')[3] == 'no data'


def test_rates_are_those_of_final_trainings_with_their_accuracy_on_val200():
    page = results.build(TRAININGS, ['real-a'])
    rates = page[page.index('## Learning rates') :]
    assert cells(rates, 'gleam-t')[0] == '0.01 (66.5)'
    assert cells(rates, 'lora')[0] == '0.003 (64.0)'


def test_a_record_without_final_trainings_makes_a_page():
    page = results.build([t for t in TRAININGS if t.phase == 'select'], ['real-a'])
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
