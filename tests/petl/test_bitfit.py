"""BitFit trains the biases and nothing else."""

import pytest
import torch

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import BitFit


def test_every_bias_and_nothing_else_is_trained(backbone):
    method = BitFit()
    method.attach(backbone)
    trained = dict(method.trainable_parameters())
    expected = {}
    for name, module in backbone.named_modules():
        for bias in ('bias', 'relative_position_bias_table'):
            if isinstance(getattr(module, bias, None), torch.nn.Parameter):
                expected[f'backbone.{name}.{bias}'] = getattr(module, bias)
    assert trained == expected
    assert not list(method.parameters())
    changed = {id(parameter) for parameter in trained.values()}
    kept = [name for name, own in backbone.named_parameters() if id(own) not in changed]
    assert not any('bias' in name for name in kept)


# Widths of the biases of a block, in units of d: two norms, qkv, proj, fc1, fc2.
BLOCK = 2 + 3 + 1 + 4 + 1


@pytest.mark.parametrize(
    ('recipe', 'formula', 'count'),
    [
        ('vit-b_bitfit_vtab-cifar', 12 * BLOCK * 768 + 2 * 768, 102_912),
        ('timm-vit-b_bitfit_vtab-cifar', 12 * BLOCK * 768 + 2 * 768, 102_912),
        (
            'swin-b_bitfit_vtab-cifar',
            BLOCK * (2 * 128 + 2 * 256 + 18 * 512 + 2 * 1024)
            + 13**2 * (2 * 4 + 2 * 8 + 18 * 16 + 2 * 32)  # relative positions in windows of 7 x 7
            + 2 * 128  # the patch embedding and its norm
            + 4 * (128 + 256 + 512)  # the norms of patch merging
            + 1024,
            200_760,
        ),
    ],
)
def test_parameters_of_the_base_models(recipe, formula, count):
    assert params.count_config(recipes.load(recipe)).trainable == formula == count


def test_merging_changes_nothing(vit, images):
    method = BitFit()
    method.attach(vit)
    adapted = vit(images)[0]
    method.merge()
    assert torch.equal(vit(images)[0], adapted)
    method.unmerge()
    assert torch.equal(vit(images)[0], adapted)
