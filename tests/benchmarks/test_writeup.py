"""The page: right and honest for any state of the record."""

import itertools
import random
import re

import claims
import pytest
import records
import writeup
from records import Record

from gleam_mm.errors import UserError

TASKS = list(writeup.SUITE.tasks)
PARAMETERS = {
    'linear': 0,
    'slora': 4096,
    'lora-r1': 4096,
    'lora': 32768,
    'lora-r10': 40960,
    'fact': 28672,
    'repadapter': 26752,
    'ssf': 23040,
    'gleam-t': 3168,
    'gleam-b': 10560,
    'gleam-l': 38016,
}
NOTE = {
    'collected': '2026-01-01',
    'backbone': 'vit-mini',
    'epochs': 6,
    'batch_size': 32,
    'dtype': 'float32',
    'options': {'train_cfg.max_epochs': 6},
    'rates': {'lora': 0.003, 'gleam-l': 0.02, 'full': 0.0003},
    'gleam_mm': '0',
    'commit': 'abc1234',
    'python': '3',
    'torch': '2',
    'mmengine': '0',
    'mmpretrain': '1',
    'processor': 'Abacus',
    'cores': 2,
    'workers': 2,
    'threads': 1,
}


def final(method, task, seed, accuracy, study=claims.MAIN):
    done = accuracy is not None
    return Record(
        study,
        'final',
        method,
        task,
        seed,
        '',
        'complete' if done else 'waiting',
        accuracy,
        PARAMETERS.get(method, 38016) if done else None,
        3600.0 if done else None,
    )


def select(method, rate, accuracy, task='mini-count'):
    options = f'rank=16,{records.RATE}={rate}'
    return Record(claims.RATES, 'select', method, task, 0, options, 'complete', accuracy, 9, 3600.0)


def study(methods=PARAMETERS, seeds=3, done=lambda method, task, seed: True, name=claims.MAIN):
    """A study whose accuracies are random, and higher for later methods."""
    dice = random.Random(0)
    return [
        final(
            method,
            task,
            seed,
            round(50 + 3 * place + dice.uniform(-1, 1), 2) if done(method, task, seed) else None,
            name,
        )
        for (place, method), task, seed in itertools.product(
            enumerate(methods), TASKS, range(seeds)
        )
    ]


def section(text, head):
    """What stands between a head and the next one of its level."""
    return re.split(r'\n## ', text.split(f'\n## {head}', 1)[1])[0]


def lines(text):
    """The rows of the tables in a text, by their first cell."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    return {row[0]: row for row in rows if len(row) > 2}


def test_averages_are_those_of_the_groups():
    accuracies = dict(zip(TASKS, (10, 20, 30, 40, 50, 60, 70, 80, 99), strict=True))
    text, figures = writeup.build(
        [final('lora', task, 0, float(accuracy)) for task, accuracy in accuracies.items()], {}
    )
    row = lines(section(text, 'All methods'))['LoRA']
    assert row[1:4] == ['`lora`', '32,768', '1']
    assert row[4:13] == [f'{accuracy:.1f}' for accuracy in accuracies.values()]
    assert row[13:] == ['20.0', '50.0', '83.0', '51.0', '—']
    assert list(figures) == [writeup.FRONT]


def test_an_average_needs_all_tasks():
    text, figures = writeup.build(
        study(['lora', 'ssf'], done=lambda method, task, seed: seed == 0 and task != TASKS[-1]), {}
    )
    row = lines(section(text, 'All methods'))['LoRA']
    assert row[3] == '0-1'
    assert row[-5] != '—' and row[-3:] == ['—', '—', '—']
    assert not figures
    assert '**The benchmark is not complete: 16 of 54 planned trainings' in text


def test_a_complete_main_study_says_what_is_missing_elsewhere():
    text, _ = writeup.build(study(), {claims.MAIN: NOTE})
    assert 'nothing is recorded of `minivtab-rates`, `minivtab-wirings`' in text
    row = lines(text)['`minivtab`']
    assert '297' in row and '297.0' in row  # trainings of an hour each
    assert 'Abacus' in row[3] and 'abc1234' in row[4] and '`train_cfg.max_epochs=6`' in row[2]


def test_verdicts_follow_from_the_numbers():
    text, _ = writeup.build(study(), {})
    ladder = lines(section(text, 'Claim 1'))
    assert ladder['`lora` > `slora`'][-1] == '**holds**'
    assert ladder['`lora` > `slora`'][2:5] == ['32,768', '4,096', 'B']
    assert ladder['`lora` > `slora`'][8] == '27 (9 tasks)'
    assert ladder['`gleam-l` > `gleam-l-n0`'][-1] == '**no data**'
    front = lines(section(text, 'Claim 2'))
    assert front['`gleam-b` > `lora`'][-1] == '**holds**'
    backwards, _ = writeup.build(study(dict(reversed(PARAMETERS.items()))), {})
    front = lines(section(backwards, 'Claim 2'))
    assert front['`gleam-b` > `lora`'][-1] == '**the other way round**'


def test_one_seed_of_one_task_decides_nothing():
    text, _ = writeup.build(
        study(done=lambda method, task, seed: (task, seed) == (TASKS[0], 0)), {}
    )
    row = lines(section(text, 'Claim 1'))['`lora` > `slora`']
    assert row[8] == '1 (1 tasks)'
    assert row[-3:] == ['— (—)', '— (—)', '**not decided**']


def test_opponents_have_at_least_as_many_parameters():
    claim, larger = claims.fronts({**PARAMETERS, 'fact-tk': 44032})
    tested = [(c.first, c.second) for c in claim.comparisons]
    assert [second for first, second in tested if first == 'gleam-t'] == [
        'lora-r1',
        'lora',
        'fact',
        'repadapter',
        'ssf',
    ]
    assert [second for first, second in tested if first == 'gleam-l'] == ['lora-r10', 'fact-tk']
    assert ('gleam-l', 'lora') in [(c.first, c.second) for c in larger]
    for first, second in tested:
        assert PARAMETERS[first] <= {**PARAMETERS, 'fact-tk': 44032}[second]


def test_a_second_rate_is_compared_with_the_first_and_is_no_opponent():
    table = study() + study(['lora-lr0.01'], seeds=1, name=claims.SECOND_RATES)
    text, _ = writeup.build(table, {})
    row = lines(section(text, 'What hangs on learning rates'))['`lora` > `lora-lr0.01`']
    assert row[1] == '0.003 against 0.01'
    assert row[8] == '9 (9 tasks)'
    assert 'lora-lr0.01' not in section(text, 'Claim 2')
    assert 'No comparison' not in text


def test_trainings_at_chance_are_named():
    table = [
        final('lora', 'mini-distance', 0, 19.0),  # of six classes: 16.7, three errors of 0.83
        final('lora', 'mini-distance', 1, 19.5),
        final('lora', 'mini-letters', 0, 19.0),
        final('lora', 'mini-letters', 2, 3.8),
        final('ssf', 'mini-letters', 0, None),
    ]
    rows = lines(section(writeup.build(table, {})[0], 'Trainings that ended at chance'))
    assert rows['`minivtab`'][1:] == ['`lora`', 'Distance, seed 0 (19.0); Letters, seed 2 (3.8)']
    assert len(rows) == 3
    assert 'at chance' not in writeup.build(table[2:3], {})[0]


def test_equal_numbers_of_parameters_count_as_at_most_as_many():
    claim, larger = claims.fronts({'gleam-t': 3000, 'ssf': 3000})
    assert [(c.first, c.second) for c in claim.comparisons] == [('gleam-t', 'ssf')]
    assert not larger


def test_variants_are_compared_with_the_baseline_across_studies():
    table = study(['gleam-l']) + study(['gleam-l-n2', 'gleam-l-odd'], name=claims.ABLATIONS)
    text, figures = writeup.build(table, {})
    assert writeup.DIFFERENCES in figures
    row = lines(section(text, 'Claim 3'))['`gleam-l` > `gleam-l-n2`']
    assert row[8] == '27 (9 tasks)'
    assert 'No comparison has `gleam-l-odd`.' in text


def test_a_study_of_ones_own_has_a_table_and_no_part_in_the_claims():
    text, _ = writeup.build(study() + study(['gleam-l-n0'], name='mine'), {})
    assert 'GLEAM-L n0' in lines(section(text, 'Accuracies of `mine`'))
    ladder = lines(section(text, 'Claim 1'))
    assert ladder['`gleam-l` > `gleam-l-n0`'][-1] == '**no data**'


def test_rates():
    table = [
        *(select('lora', rate, 70.0 if rate == 0.01 else 60.0) for rate in (0.003, 0.01, 0.03)),
        *(select('gleam-l', rate, 60.0) for rate in (0.01, 0.003)),
        select('ssf', 0.01, 70.0),
        select('ssf', 0.03, None),
    ]
    text, _ = writeup.build(table, {claims.MAIN: NOTE})
    rows = lines(section(text, 'How learning rates'))
    assert rows['LoRA'][2:] == ['60.00', '**70.00**', '60.00', '0.003 ‡']
    assert rows['GLEAM-L'][2:] == ['**60.00** †', '60.00', '', '0.02 ‡']
    assert rows['SSF'][2:] == ['', '70.00', '— (0 of 1)', '—']
    assert '`full` 0.0003' in section(text, 'How learning rates')


def test_the_chosen_rate_has_the_best_mean_over_tasks():
    assert writeup.chosen_rate({0.01: [50, 70], 0.1: [90, 20], 0.001: [60, 60]}) == 0.001
    assert writeup.chosen_rate({0.01: [50, None], 0.1: [90, 20]}) is None


def test_a_rates_study_without_rates():
    row = select('lora', 0.1, 50.0)
    with pytest.raises(UserError, match='lora on mini-count'):
        records.rate_of(Record(**{**vars(row), 'options': 'rank=16'}))


def subject(name, update, frozen, accuracy, **more):
    role = {
        path: {'adjacent': {'cosine': v}} for path, v in (('update', update), ('frozen', frozen))
    }
    data = {'dataset': 'MiniVTAB count', 'split': 'test', 'images': 2000}
    return {
        'name': name,
        'config': 'vit-mini_lora_mini-count',
        'checkpoint': 'runs/seed0/adapter.safetensors',
        'data': data,
        'accuracy': {'value': accuracy},
        'roles': {'qkv': role, **more},
    }


def test_homogeneity():
    content = {
        'analysis': 'homogeneity',
        'subjects': [
            subject('lora@count', 0.5, 0.25, 60.0),
            subject('lora@land', 0.25, 0.75, 70.0),
            subject('gleam-l', None, 0.25, 80.0),
        ],
    }
    text, _ = writeup.build(study(), {}, content)
    rows = lines(section(text, 'Claim 4'))
    assert rows['`lora`'] == ['`lora`', '2', '0.375 / 0.500 (1 of 2)', '65.0']
    assert rows['`gleam-l`'] == ['`gleam-l`', '1', '—', '80.0']
    assert '## Claim 4' not in writeup.build(study(), {})[0]
    assert (
        'python tools/analyze.py homogeneity --split test --max-images 2000 \\\n'
        '    lora@count=runs/seed0/vit-mini_lora_mini-count.py:runs/seed0/adapter.safetensors \\\n'
    ) in text


@pytest.mark.slow
def test_the_page_is_what_the_record_gives():
    trainings = records.read(records.FOLDER / records.CSV)
    own = [row for row in trainings if row.study not in claims.TUNED]
    files = (records.STUDIES, 'homogeneity.json')
    text, _ = writeup.build(own, *(records.read_json(records.FOLDER / name) for name in files))
    assert text == (records.FOLDER / writeup.PAGE).read_text(), (
        'make it again: python benchmarks/minivtab/page.py'
    )


def test_the_page_is_written_from_the_record_alone(tmp_path):
    with pytest.raises(UserError, match='nothing is recorded'):
        writeup.write(tmp_path)
    records.write(tmp_path / records.CSV, study(['lora', 'gleam-l'], seeds=1))
    written = writeup.write(tmp_path)
    assert [path.name for path in written] == ['RESULTS.md', 'front.svg', 'front.png']
    before = [path.read_bytes() for path in written]
    writeup.write(tmp_path)
    assert [path.read_bytes() for path in written] == before


def test_both_studies_of_methods_make_up_one_table():
    text, _ = writeup.build(study(['lora']) + study(['linear'], name=claims.OTHERS), {})
    assert list(lines(section(text, 'All methods')))[2:] == ['Linear probe', 'LoRA']
    assert 'Accuracies of' not in text


def test_the_highest_number_of_a_column_is_in_bold():
    accuracies = {'lora': 40.0, 'ssf': 60.0, 'fact': 50.0}
    trainings = [
        final(method, task, 0, value) for method, value in accuracies.items() for task in TASKS
    ]
    trainings.append(final('linear', TASKS[0], 0, 70.0))
    rows = lines(section(writeup.build(trainings, {})[0], 'All methods'))
    bold = {name: [cell for cell in row if cell.startswith('**')] for name, row in rows.items()}
    assert bold['Linear probe'] == ['**70.0**']
    assert bold['SSF'] == ['**60.0**'] * (len(TASKS) - 1 + 4)
    assert bold['LoRA'] == bold['FacT-TT'] == []


def test_hostile_names_stay_in_their_cells():
    name = 'x`|<script>\n**y**'
    text, _ = writeup.build(study(['lora', name]) + study([name], name='a|b'), {})
    assert '<script>' not in text
    head = ''
    found = 0
    for line in text.splitlines():
        if line.startswith('|'):
            head = head or line
            if 'script' in line:
                found += 1
                assert re.sub(r'\\.', '', line).count('|') == head.count('|')
        else:
            head = ''
    assert found == 2  # in the table of all methods and in that of the other study
