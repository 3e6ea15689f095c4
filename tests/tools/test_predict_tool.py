"""tools/predict.py as a user runs it, on what tools/train.py has written."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from gleam_mm.registry import DATASETS


@pytest.fixture
def pictures(tmp_path):
    """A folder with six handwritten digits of the test split."""
    pipeline = [dict(type='PackInputs')]
    data = DATASETS.build(dict(type='MiniVTAB', split='test', indices=6, pipeline=pipeline))
    (tmp_path / 'digits').mkdir()
    for i in range(6):
        array = data[i]['inputs'].permute(1, 2, 0).numpy()
        Image.fromarray(array).save(tmp_path / 'digits' / f'{i}.png')
    return tmp_path / 'digits'


def test_predict_what_was_trained(call, config, pictures, tmp_path):
    done = call('train.py', config, '--cfg-options', 'train_cfg.max_epochs=2', '--work-dir', 'run')
    assert done.code == 0, done.err
    adapter = 'run/adapter.safetensors'
    done = call('predict.py', adapter, pictures, '--top-k', 3, '--out', 'told.json')
    assert done.code == 0, done.err
    told = json.loads((tmp_path / 'told.json').read_text())
    assert list(told) == sorted(map(str, pictures.iterdir()))
    lines = done.out.splitlines()
    for line, (file, best) in zip(lines, told.items(), strict=True):
        scores = [one['score'] for one in best]
        assert len(best) == 3
        assert scores == sorted(scores, reverse=True)
        assert line == f'{file}: ' + ', '.join(f'{b["label"]} {b["score"]:.3f}' for b in best)

    # One that is broken, and one that is not there
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'')
    good = pictures / '0.png'
    done = call('predict.py', adapter, broken, good, 'none.png', '--out', 'told.csv')
    assert done.code == 1
    assert done.err.splitlines() == [
        f'{broken}: cannot be read as an image: the file is empty',
        'none.png does not exist',
    ]
    with (tmp_path / 'told.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['file'], row['rank']) for row in rows] == [(str(good), '1')]
    best = told[str(good)][0]
    assert rows[0]['label'] == str(best['label'])
    assert np.isclose(float(rows[0]['score']), best['score'])


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['a.safetensors', 'x.png', '--top-k', '0'], '--top-k 0: give a number of at least 1'),
        (['a.safetensors', 'x.png', '--out', 'x.txt'], '--out x.txt: predictions go to a .csv'),
        (['a.safetensors', 'x.png'], 'a.safetensors: no such file'),
    ],
)
def test_mistakes(call, flags, message):
    done = call('predict.py', *flags)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
