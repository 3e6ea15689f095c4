"""docs/methods.md prints what there is: presets, their classes, counts and costs on ViT-B."""

import re
from functools import cache

import cost
import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer

from gleam_mm.config import methods, recipes
from gleam_mm.registry import MODELS
from gleam_mm_cli.recipes import _ORDERS as ORDERS
from gleam_mm_cli.recipes import methods_table

ROWS = methods.entries()


NEEDS_NUMBERS = ('boft', 'shira')  # PEFT looks at the numbers of what it has just made


@pytest.fixture(scope='module')
def vit_b():
    return cache(_vit_b)


def _vit_b(device):
    with torch.device(device):
        vit = VisionTransformer('b')
    vit.eval()
    return vit


def test_every_preset_has_one_row():
    assert sorted(row.preset for row in ROWS) == sorted(recipes.families()['methods'])


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.preset)
def test_counts(row, vit_b):
    config = Config.fromfile(recipes.families()['methods'][row.preset]).method
    assert config['type'] == row.method.partition('(')[0]
    device = 'cpu' if row.preset in NEEDS_NUMBERS else 'meta'
    with torch.device(device):
        method = MODELS.build(config)
        method.attach(vit_b(device))
        trained = sum(parameter.numel() for _, parameter in method.trainable_parameters())
        method.detach()
    assert trained == row.parameters


@pytest.mark.slow
@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.preset)
def test_costs(row, vit_b):
    if row.merges == 'yes':
        assert row.cost == 0
    elif row.preset in ('dyt', 'coda'):  # half or three quarters of 196 patches skip twelve FFNs
        skipping = {'dyt': 98, 'coda': 147}[row.preset]
        ffns = 2 * skipping * 12 * 2 * 768 * 3072 / 1e9
        own = 2 * 197 * 12 * (2 * 768 * 16 + 768) / 1e9
        assert row.cost == pytest.approx(own - ffns, abs=0.05)
    else:
        assert row.cost == pytest.approx(cost.extra(row.preset, vit_b('meta')), abs=0.0051)


def test_the_page_names_the_orders():
    page = methods._PAGE.read_text('utf-8')
    (told,) = re.findall(r'as one, `--sort (.*?) in\s+that order', page)
    assert set(re.findall(r'\w+', told)) - {'or'} == set(ORDERS) - {'family'}


def test_the_map_is_sorted():
    names = {row.preset for row in ROWS}
    for order, of in (
        ('parameters', lambda row: row.parameters),
        ('cost', lambda row: row.cost),
        ('merges', lambda row: row.merges != 'yes'),
    ):
        by_name = {row.preset: row for row in ROWS}
        lines = methods_table(order).splitlines()[2:]
        listed = [line.split()[0] for line in lines]
        assert set(listed) == names
        keys = [of(by_name[name]) for name in listed]
        assert keys == sorted(keys)
    best = methods_table('accuracy').splitlines()[2].split()
    assert best[0] == 'mlae' and best[2] == '78.8'
    assert [line.split()[0] for line in methods_table('family').splitlines()[2:]] == [
        row.preset for row in ROWS
    ]
