"""Trainings towards numbers, and evaluators that give more than one number, by the tools."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from tiny_vit import TINY_VIT

from gleam_mm.checkpoint import read_adapter

CONFIG = """
_base_ = [
    'gleam_mm::_base_/methods/lora.py',
    'gleam_mm::_base_/datasets/csv.py',
    'gleam_mm::_base_/schedules/petl_100e.py',
    'gleam_mm::_base_/default_runtime.py',
]
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='VisionTransformer',
        init_cfg=dict(type='Pretrained', checkpoint='{weights}'),
        **{vit},
    ),
    head=dict(type='RegressionHead', in_channels=32, num_classes=None, mean=100.0, std=50.0),
    petl=_base_.method,
)
numbers = dict(ann_file='light.csv', label_column='light', target='number')
train_dataloader = dict(batch_size=8, num_workers=0, dataset=numbers)
val_dataloader = dict(num_workers=0, dataset=numbers)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(_delete_=True, type='RegressionMetric')
train_cfg = dict(max_epochs=6)
param_scheduler = [dict(type='CosineAnnealingLR', convert_to_iter_based=True)]
optim_wrapper = dict(optimizer=dict(lr=1e-2))
"""


@pytest.fixture
def light(tmp_path, weights):
    """Pictures of one brightness each, and a table that tells it."""
    rows = [['image', 'light']]
    for index, level in enumerate(np.linspace(20, 200, 40)):
        Image.new('RGB', (40, 40), (int(level),) * 3).save(tmp_path / f'{index}.png')
        rows.append([f'{index}.png', f'{level:.3f}'])
    with (tmp_path / 'light.csv').open('w', newline='') as file:
        csv.writer(file).writerows(rows)
    (tmp_path / 'light.py').write_text(CONFIG.format(weights=weights, vit=TINY_VIT))
    return tmp_path


def test_numbers(call, light):
    done = call('train.py', 'light.py', '--work-dir', 'run')
    assert done.code == 0, done.err
    assert float(done.row('accuracy').split()[1]) < 25  # the mean absolute error; guessing has 46
    _, metadata = read_adapter(light / 'run' / 'adapter.safetensors')
    assert metadata['classes'] == ['light']
    assert metadata['metrics']['val'].keys() == {
        f'regression/{name}' for name in ('mae', 'rmse', 'r2', 'pearson')
    }
    assert any(file.name.startswith('best_regression_mae') for file in (light / 'run').iterdir())
    done = call('predict.py', 'run/adapter.safetensors', '0.png', '39.png', '--out', 'told.json')
    assert done.code == 0, done.err
    told = [rows[0] for rows in json.loads((light / 'told.json').read_text()).values()]
    assert [one['label'] for one in told] == ['light', 'light']
    assert told[0]['score'] + 50 < told[1]['score']


def test_evaluators_of_several_numbers(call, config, tmp_path):
    text = f"""
_base_ = {str(config)!r}
val_evaluator = [
    dict(type='ConfusionMatrix'),
    dict(type='SingleLabelMetric', average=None),
    dict(type='Accuracy', topk=1),
]
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
"""
    (tmp_path / 'several.py').write_text(text)
    done = call('train.py', 'several.py', '--work-dir', 'run')
    assert done.code == 0, done.err
    files = ['several.py', 'run/adapter.safetensors', '--out', 'm.json', '--out-item', 'metrics']
    done = call('test.py', *files)
    assert done.code == 0, done.err
    told = json.loads((tmp_path / 'm.json').read_text())
    assert np.sum(told['confusion_matrix/result']) == 48
    assert len(told['single-label/precision_classwise']) == 10
    assert done.row('confusion_matrix/result').startswith('10 x 10 numbers')
    assert len(done.row('single-label/recall_classwise').split()) == 10
