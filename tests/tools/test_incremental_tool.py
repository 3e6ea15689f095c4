"""tools/incremental.py as a user runs it."""

import json

import pytest

from gleam_mm.checkpoint import read_adapter


@pytest.mark.slow
def test_sessions_are_told_and_an_adapter_is_written(call, config, tmp_path):
    text = config.read_text().replace('LinearClsHead', 'CosineClsHead')
    mine = tmp_path / 'mine.py'
    words = 'incremental = dict(sessions=2, first_epochs=1, epochs=1, align_epochs=1, samples=8)\n'
    mine.write_text(text + words)
    done = call('incremental.py', mine, '--work-dir', tmp_path / 'work')
    assert done.code == 0, done.err
    first, second, last, mean = done.out.splitlines()[-4:]
    assert first.startswith('session 1: 5 classes, ') and second.startswith('session 2: 10 classes')
    told = json.loads((tmp_path / 'work' / 'incremental.json').read_text())
    assert last == f'A_last {told["accuracies"][1]:.2f}'
    assert mean == f'A_mean {sum(told["accuracies"]) / 2:.2f}'
    assert read_adapter(tmp_path / 'work' / 'adapter.safetensors')[1]['classes'][0] == 'zero'

    done = call('incremental.py', mine, '--cfg-options', 'incremental.sessions=6')
    assert (done.code, 'choose 5 at most' in done.err) == (2, True)
