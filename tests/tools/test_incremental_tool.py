"""tools/incremental.py as a user runs it."""

import json

import pytest

from gleam_mm.checkpoint import read_adapter

HAS_SESSIONS = """
incremental = dict(sessions=2, first_epochs=1, epochs=1, align_epochs=1, samples=8)
"""


@pytest.fixture
def mine(config, tmp_path):
    file = tmp_path / 'mine.py'
    text = config.read_text().replace('LinearClsHead', 'CosineClsHead')
    file.write_text(text + HAS_SESSIONS)
    return file


@pytest.mark.slow
def test_sessions_are_told_and_an_adapter_is_written(call, mine, tmp_path):
    done = call('incremental.py', mine, '--work-dir', tmp_path / 'work')
    assert done.code == 0, done.err
    first, second, last, mean = done.out.splitlines()[-4:]
    assert first.startswith('session 1: 5 classes, ') and second.startswith('session 2: 10 classes')
    told = json.loads((tmp_path / 'work' / 'incremental.json').read_text())
    assert last == f'A_last {told["accuracies"][1]:.2f}'
    assert mean == f'A_mean {sum(told["accuracies"]) / 2:.2f}'
    assert read_adapter(tmp_path / 'work' / 'adapter.safetensors')[1]['classes'][0] == 'zero'

    there = tmp_path / 'work_dirs' / 'mine'
    there.mkdir(parents=True)
    (there / 'adapter.safetensors').write_bytes(b'of an earlier run')
    done = call('incremental.py', mine)
    assert done.code == 0, done.err
    beside = 'work_dirs/mine has a training already: this one goes to work_dirs/mine-2'
    assert done.out.startswith(beside)
    assert (there / 'adapter.safetensors').read_bytes() == b'of an earlier run'
    assert {f.name for f in (tmp_path / 'work_dirs' / 'mine-2').iterdir()} == {
        'adapter.safetensors',
        'incremental.json',
    }

    done = call('incremental.py', mine, '--cfg-options', 'incremental.sessions=6')
    assert (done.code, 'choose 5 at most' in done.err) == (2, True)


def test_test_folders_get_the_classes_of_the_training(call, mine, tmp_path, monkeypatch):
    for folder in ('train/cat', 'train/dog', 'test/dog'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / 'a.png').touch()
    given = []

    def learner(cfg, **_):
        given.append(cfg)
        raise ValueError('enough')

    monkeypatch.setattr('gleam_mm.incremental.SSIAT', learner)
    options = []
    for split in ('train', 'test'):
        dataset = f"dict(type='CustomDataset', data_prefix='{tmp_path / split}')"
        options.append(f'{split}_dataloader = dict(dataset={dataset})')
    mine.write_text('\n'.join([mine.read_text(), *options]))
    done = call('incremental.py', mine)
    assert (done.code, 'enough' in done.err) == (2, True)
    assert given[0].model.head.num_classes == 2
    assert given[0].test_dataloader.dataset.classes == ['cat', 'dog']


def test_a_folder_that_is_named_is_not_learned_in_twice(call, mine, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    for name in ('adapter.safetensors', 'incremental.json'):
        (work / name).write_text('of an earlier run')
    done = call('incremental.py', mine, '--work-dir', work)
    assert (done.code, done.out) == (2, '')  # before a session was learned
    assert 'has a training already, which another one would replace' in done.err
    assert {file.read_text() for file in work.iterdir()} == {'of an earlier run'}
