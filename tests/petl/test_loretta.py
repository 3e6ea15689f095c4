"""LoRETTA against tensor trains contracted index by index."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from watching import close, randomize, watch

from gleam_mm.petl import LoRETTA, MergeError
from gleam_mm.petl.tensor_train import TensorTrain, factorized


def entry(cores, indices):
    product = torch.eye(1)
    for core, index in zip(cores, indices, strict=True):
        product = product @ core[:, index]
    return product.item()


def test_an_entry_is_a_product_of_slices():
    train = TensorTrain(6, 8, 3)
    matrix = train.matrix()
    sizes = [core.shape[1] for core in train.cores]
    assert sizes == [2, 3, 2, 4]
    for number, indices in enumerate(itertools.product(*map(range, sizes))):
        row, column = divmod(number, 8)
        assert matrix[row, column].item() == pytest.approx(entry(train.cores, indices), abs=1e-6)


@pytest.mark.parametrize(
    ('number', 'factors'), [(768, [8, 8, 12]), (96, [8, 12]), (64, [8, 8]), (7, [1, 7])]
)
def test_sides_are_cut_evenly(number, factors):
    assert factorized(number) == factors
    assert math.prod(factors) == number


def test_starts_have_the_variance_of_a_lora():
    torch.manual_seed(0)
    matrices = torch.stack([TensorTrain(8, 96, 5).matrix() for _ in range(300)])
    assert matrices.square().mean().item() == pytest.approx(1 / (3 * 96), rel=0.15)
    assert not TensorTrain(8, 96, 5, zero=True).matrix().any()


@pytest.mark.parametrize('form', ['rep', 'adp'])
def test_linears_follow_the_formula(form, backbone, images):
    method = LoRETTA(form, 4, 2, alpha=2.0).eval()
    method.attach(backbone)
    randomize(method)
    assert {site.role for site in method.sites.values()} == (
        {'qkv'} if form == 'rep' else {'proj', 'fc2'}
    )
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        down, up = own.down.matrix(), own.up.matrix()
        if form == 'rep':
            expected = note.x @ (site.module.weight + 0.5 * up @ down).T + site.module.bias
        else:
            y = note.x @ site.module.weight.T + site.module.bias
            expected = y + F.gelu(y @ down.T + own.down_bias) @ up.T + own.up_bias
        close(note.adapted, expected, 1e-4)


def test_adapters_cannot_be_merged(vit):
    method = LoRETTA('adp', 4, 2)
    method.attach(vit)
    with pytest.raises(MergeError, match='its adapters have a GELU inside'):
        method.merge()
