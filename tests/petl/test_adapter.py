"""Adapter against its formula, its parameter counts, and its refusal to merge."""

import pytest
import torch
from torch import nn

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import Adapter, MergeError


@pytest.mark.parametrize('sites', [('fc2',), ('proj', 'fc2')])
def test_every_site_follows_the_formula(sites, backbone, images):
    """h = y + W_u GELU(W_d y + b_d) + b_u, with y the output of the frozen Linear."""
    seen = []

    def spy(module, args, output):
        seen.append((module, args[0], output))

    method = Adapter(3, sites)
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    own = {}
    for site in method.layout.sites(sites):
        site.module.register_forward_hook(spy)
        bottleneck = method.local[site.key]
        own[site.module] = [
            bottleneck.down.weight,
            bottleneck.down.bias,
            bottleneck.up.weight,
            bottleneck.up.bias,
        ]
    with torch.no_grad():
        backbone(images)
        assert len(seen) == len(own) > 0
        for linear, x, adapted in seen:
            down, down_bias, up, up_bias = own[linear]
            y = x @ linear.weight.T + linear.bias
            hidden = y @ down.T + down_bias
            hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
            torch.testing.assert_close(adapted, y + hidden @ up.T + up_bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'count'),
    [
        ({}, 12 * (2 * 8 * 768 + 8 + 768)),
        ({'model.petl.sites': ['proj', 'fc2']}, 24 * (2 * 8 * 768 + 8 + 768)),
        ({'model.petl.bottleneck': 64}, 12 * (2 * 64 * 768 + 64 + 768)),
    ],
)
def test_parameters_on_vit_b(options, count):
    counted = params.count_config(recipes.load('vit-b_adapter_vtab-cifar', options))
    assert counted.trainable == counted.local == count


def test_the_papers_count_is_that_of_one_a_block():
    assert params.count_config(recipes.load('vit-b_adapter_vtab-cifar')).trainable == 156_768


def test_it_cannot_be_merged(vit):
    method = Adapter()
    method.attach(vit)
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    with pytest.raises(MergeError, match='Adapter cannot be merged: its two Linears have a GELU'):
        method.merge()
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())


def test_bad_bottleneck_and_bad_site_are_named(vit):
    with pytest.raises(ValueError, match='bottleneck=0'):
        Adapter(bottleneck=0)
    with pytest.raises(ValueError, match=r"'layers.0.ffn' .* a mmcv.*\.FFN;"):
        Adapter(sites=('ffn',)).attach(vit)
