"""RepAdapter against its formula, its parameter counts and its merge."""

import pytest
import torch
from mmpretrain.models import SwinTransformer, VisionTransformer
from torch import nn
from torch.nn import functional as F

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import MergeError, RepAdapter


def randomize(method):
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize('groups', [1, 2, 4])
def test_every_site_follows_the_formula(groups, backbone, images):
    """x' = x + s conv_B(conv_A(x)), with a dense and a grouped 1x1 convolution."""
    seen, plain = [], {}
    method = RepAdapter(4, groups, scale=0.5).eval()
    method.attach(backbone)
    randomize(method)
    own = {site.module: method.local[site.key] for site in method.layout.sites(('qkv', 'fc1'))}
    for linear in own:
        linear.register_forward_hook(lambda *call: seen.append(call))
        # Hooks in front of the method's own see what the backbone gives.
        linear.register_forward_pre_hook(
            lambda module, args: plain.update({module: args[0].clone()}), prepend=True
        )
    with torch.no_grad():
        backbone(images)
        assert len(seen) == len(own) > 0
        for linear, _, adapted in seen:
            x = plain[linear].transpose(1, 2)
            kernel = own[linear].up.flatten(0, 1).unsqueeze(-1)  # (d, r / groups, 1)
            z = F.conv1d(x, own[linear].down.weight.unsqueeze(-1), own[linear].down.bias)
            x = x + 0.5 * F.conv1d(z, kernel, own[linear].up_bias, groups=groups)
            expected = F.linear(x.transpose(1, 2), linear.weight, linear.bias)
            torch.testing.assert_close(adapted, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'count'),
    [
        ({}, 24 * (768 * 8 + 8 + 768 * 4 + 768)),
        ({'model.petl.groups': 1}, 24 * (768 * 8 + 8 + 768 * 8 + 768)),
        ({'model.petl.sites': ['qkv']}, 12 * (768 * 8 + 8 + 768 * 4 + 768)),
    ],
)
def test_parameters_on_vit_b(options, count):
    counted = params.count_config(recipes.load('vit-b_repadapter_vtab-cifar', options))
    assert counted.trainable == counted.local == count


def test_the_published_width_and_groups():
    counted = params.count_config(recipes.load('vit-b_repadapter_vtab-cifar'))
    assert counted.trainable == 24 * (13 * 768 + 8) == 239_808


def test_all_of_it_merges(backbone, images):
    method = RepAdapter(4, scale=0.5).eval()
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        adapted = backbone(images)[0]
        method.merge()
        torch.testing.assert_close(backbone(images)[0], adapted, rtol=1e-5, atol=1e-5)
        method.unmerge()
        assert torch.equal(backbone(images)[0], adapted)


def test_padded_windows_merge_too(images):
    """Padding of 6 x 6 tokens to windows of 4 x 4 passes through the adapter on both ways."""
    backbone = SwinTransformer(
        dict(embed_dims=16, depths=[2], num_heads=[2]),
        img_size=32,
        patch_size=2,
        window_size=4,
        drop_path_rate=0.0,
        out_indices=(0,),
    )
    backbone.eval()
    method = RepAdapter(4).eval()
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.1)
    images = images[..., :12, :12]
    with torch.no_grad():
        adapted = backbone(images)[0]
        method.merge()
        torch.testing.assert_close(backbone(images)[0], adapted, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_only(vit, images):
    method = RepAdapter(4, drop_rate=0.5)
    method.attach(vit)
    randomize(method)
    vit.eval()
    assert torch.equal(vit(images)[0], vit(images)[0])
    vit.train()
    assert not torch.equal(vit(images)[0], vit(images)[0])


def test_a_linear_without_bias_cannot_take_the_shift():
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=128)
    vit = VisionTransformer(arch, img_size=32, patch_size=8, qkv_bias=False)
    method = RepAdapter()
    method.attach(vit)
    with pytest.raises(MergeError, match='has no bias that could take the shift'):
        method.merge()


def test_bad_numbers_are_named(vit):
    with pytest.raises(ValueError, match='rank=0'):
        RepAdapter(rank=0)
    with pytest.raises(ValueError, match='groups=0'):
        RepAdapter(groups=0)
    with pytest.raises(ValueError, match='groups=3 does not divide rank=8'):
        RepAdapter(groups=3)
    with pytest.raises(ValueError, match=r"groups=3 does not divide the 32 inputs of 'layers\.0"):
        RepAdapter(6, groups=3).attach(vit)
    with pytest.raises(ValueError, match=r"'layers.0.ffn' .* a mmcv.*\.FFN;"):
        RepAdapter(sites=('ffn',)).attach(vit)
