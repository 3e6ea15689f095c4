"""The record: what is kept of studies, and how it is brought up to date."""

from dataclasses import replace

import pytest
import records
from records import Record

from gleam_mm.errors import UserError
from gleam_mm.sweep.results import Result


def record(study='minivtab', method='lora', dataset='mini-count', seed=0, accuracy=61.25, **more):
    done = accuracy is not None
    return Record(
        **{
            'study': study,
            'phase': 'final',
            'method': method,
            'dataset': dataset,
            'seed': seed,
            'options': '',
            'state': 'complete' if done else 'waiting',
            'accuracy': accuracy,
            'parameters': 32768 if done else None,
            'seconds': 12.5 if done else None,
            **more,
        }
    )


def test_a_file_gives_back_what_was_written(tmp_path):
    rows = [
        record(),
        record(seed=1, accuracy=None),
        record(method='gleam-l-n0', options='moe=False,sites=["qkv", "proj"]', accuracy=70.0),
    ]
    records.write(tmp_path / 'results.csv', rows)
    assert sorted(records.read(tmp_path / 'results.csv'), key=str) == sorted(rows, key=str)
    line = (tmp_path / 'results.csv').read_text().splitlines()[1]
    assert line.endswith(',complete,70.00,32768,12.5')


def test_the_order_of_trainings_does_not_change_the_file(tmp_path):
    rows = [record(seed=seed, study=study) for seed in (0, 1) for study in ('b', 'a')]
    records.write(tmp_path / 'one.csv', rows)
    records.write(tmp_path / 'other.csv', reversed(rows))
    assert (tmp_path / 'one.csv').read_bytes() == (tmp_path / 'other.csv').read_bytes()


def test_no_file_is_an_empty_record(tmp_path):
    assert records.read(tmp_path / 'results.csv') == []


@pytest.mark.parametrize(
    'change',
    [
        lambda text: 'a,b\n1,2\n',
        lambda text: text.replace('61.25', 'much'),
        lambda text: text.replace('12.5', '12.5,one more'),
        lambda text: text.replace(',0,,complete,61.25,32768,12.5', ''),
    ],
)
def test_another_file_is_refused(tmp_path, change):
    path = tmp_path / 'results.csv'
    records.write(path, [record()])
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=r'results\.csv'):
        records.read(path)


def test_results_of_a_study():
    result = Result(
        'vit-mini',
        'gleam-l-n2',
        'mini-count',
        'final',
        1,
        {'alpha': 10},
        'complete',
        61.249999,
        9,
        7.77,
    )
    waits = replace(result, state='running', accuracy=None, parameters=None, seconds=None)
    done = Record(
        'x',
        'final',
        'gleam-l-n2',
        'mini-count',
        1,
        'num_experts=2,alpha=10',
        'complete',
        61.25,
        9,
        7.8,
    )
    assert records.of_study('x', [result, waits], {'gleam-l-n2': {'num_experts': 2}}) == [
        done,
        replace(done, state='waiting', accuracy=None, parameters=None, seconds=None),
    ]


def test_a_study_that_is_here_replaces_its_rows_and_no_others():
    old = [record('a', accuracy=None), record('a', seed=7, accuracy=50.0), record('b')]
    new = [record('a', accuracy=66.0), record('a', seed=1, accuracy=None)]
    assert records.merge(old, {'a': new}) == [record('b'), *new]
    assert records.merge([], {'a': new}) == new


def test_a_study_with_fewer_trainings_than_recorded_is_another_run():
    with pytest.raises(UserError, match=r'minivtab: results\.csv has 2 complete trainings'):
        records.merge([record(), record(seed=1)], {'minivtab': [record()]})


def test_scores_are_of_complete_final_trainings():
    rows = [
        record(accuracy=60.0),
        record(seed=1, accuracy=None),
        record(seed=2, phase='select'),
        record('later', accuracy=70.0),
        record('later', 'slora', accuracy=50.0),
    ]
    assert records.scores(rows) == {
        'lora': {('mini-count', 0): 60.0},
        'slora': {('mini-count', 0): 50.0},
    }


def test_a_file_that_is_no_json_is_named(tmp_path):
    file = tmp_path / 'routing.json'
    assert records.read_json(file) is None
    file.write_text('{')
    with pytest.raises(UserError, match=r'routing\.json'):
        records.read_json(file)
