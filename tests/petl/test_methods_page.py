"""docs/methods.md prints what there is: presets, their classes and their counts on ViT-B."""

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer

from gleam_mm.config import recipes
from gleam_mm.registry import MODELS

PAGE = Path(__file__).parents[2] / 'docs' / 'methods.md'
ROWS = [
    [cell.strip() for cell in line.strip('|').split(' | ')]
    for line in PAGE.read_text().splitlines()
    if line.startswith('| `')
]


NEEDS_NUMBERS = ('boft', 'shira')  # PEFT looks at the numbers of what it has just made


@pytest.fixture(scope='module')
def vit_b():
    return cache(_vit_b)


def _vit_b(device):
    with torch.device(device):
        return VisionTransformer('b')


def test_every_preset_has_one_row():
    assert sorted(row[0].strip('` ') for row in ROWS) == sorted(recipes.families()['methods'])


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0].strip('` '))
def test_counts(row, vit_b):
    name, kind, count = row[0].strip('` '), row[1].strip('`'), int(row[3].replace(',', ''))
    config = Config.fromfile(recipes.families()['methods'][name]).method
    assert config['type'] == kind.partition('(')[0]
    device = 'cpu' if name in NEEDS_NUMBERS else 'meta'
    with torch.device(device):
        method = MODELS.build(config)
        method.attach(vit_b(device))
        trained = sum(parameter.numel() for _, parameter in method.trainable_parameters())
        method.detach()
    assert trained == count
