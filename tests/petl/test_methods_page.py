"""docs/methods.md prints what there is: presets, their classes and their counts on ViT-B."""

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


@pytest.fixture(scope='module')
def vit_b():
    with torch.device('meta'):
        return VisionTransformer('b')


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0].strip('` '))
def test_counts(row, vit_b):
    name, kind, count = row[0].strip('` '), row[1].strip('`'), int(row[3].replace(',', ''))
    config = Config.fromfile(recipes.families()['methods'][name]).method
    assert config['type'] == kind.partition('(')[0]
    with torch.device('meta'):
        method = MODELS.build(config)
        method.attach(vit_b)
        trained = sum(parameter.numel() for _, parameter in method.trainable_parameters())
        method.detach()
    assert trained == count
