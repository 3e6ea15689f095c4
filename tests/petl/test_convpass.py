"""Convpass against its formula, its parameter counts and its start."""

import pytest
import torch
from backbones import BACKBONES
from torch import nn
from torch.nn import functional as F

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import Convpass, MergeError


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def literal_bypass(own, x, prefix, size):
    """The bypass image by image, each prefix token as an image of 1x1."""
    z = quick_gelu(x @ own.down.weight.T + own.down.bias)
    rows = []
    for tokens in z:
        images = [token.view(-1, 1, 1) for token in tokens[:prefix]]
        images.append(tokens[prefix:].T.reshape(-1, *size))
        mixed = [
            F.conv2d(image[None], own.conv.weight, own.conv.bias, padding=1)[0].flatten(1).T
            for image in images
        ]
        rows.append(torch.cat(mixed))
    return quick_gelu(torch.stack(rows)) @ own.up.weight.T + own.up.bias


def test_every_site_follows_the_formula(backbone, images):
    """h = y + s U act(Conv(act(D x))), beside the whole sublayer."""
    method = Convpass(3, scale=0.5).eval()
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    sites = method.layout.sites(('attn', 'ffn'))
    plain, adapted = {}, {}
    for site in sites:
        site.module.register_forward_hook(
            lambda module, args, output, site=site: plain.update({site: output.clone()}),
            prepend=True,
        )
        site.module.register_forward_hook(
            lambda module, args, output, site=site: adapted.update({site: (args[0], output)})
        )
    swin = 'Swin' in type(method.layout).__name__
    height = (
        32 if hasattr(backbone, 'timm_model') else 24
    )  # timm's take the size they are built for
    images = images[..., :height, :]
    with torch.no_grad():
        backbone(images)
        assert len(adapted) == len(sites) > 0
        for site in sites:
            # Patches of 2 x 2 in Swin, doubled by the second stage, and of 8 x 8 in ViT.
            patch = 2 * 2**site.stage if swin else 8
            window = swin and site.role == 'attn'
            size = (4, 4) if window else (height // patch, 32 // patch)
            x, output = adapted[site]
            expected = plain[site] + 0.5 * literal_bypass(
                method.local[site.key], x, 0 if swin else 1, size
            )
            torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('sites', 'sublayers'), [(['attn', 'ffn'], 24), (['attn'], 12)])
def test_parameters_on_vit_b(sites, sublayers):
    options = {'model.petl.sites': sites}
    counted = params.count_config(recipes.load('vit-b_convpass_vtab-cifar', options))
    count = sublayers * ((8 * 768 + 8) + (9 * 8 * 8 + 8) + (8 * 768 + 768))
    assert counted.trainable == counted.local == count
    assert sublayers != 24 or count == 327_552


def test_the_convolution_starts_as_the_identity(vit):
    method = Convpass(5)
    method.attach(vit)
    image = torch.randn(2, 5, 4, 4)
    for own in method.local.values():
        torch.testing.assert_close(own.conv(image), image)
        assert not own.up.weight.any()


def test_dropout_acts_in_training_only(vit, images):
    method = Convpass(drop_rate=0.5)
    method.attach(vit)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    vit.eval()
    assert torch.equal(vit(images)[0], vit(images)[0])
    vit.train()
    assert not torch.equal(vit(images)[0], vit(images)[0])


@pytest.mark.parametrize('kind', BACKBONES)
def test_a_drop_path_of_the_block_drops_the_bypass(kind, images):
    """Wherever the library has it: what is never added to the tokens trains nothing."""
    backbone = BACKBONES[kind](drop_path_rate=1 - 1e-6)
    backbone.train()
    method = Convpass(3)
    method.attach(backbone)
    for own in method.local.values():
        nn.init.normal_(own.up.weight)
    # The plain sum of what a norm gives is a constant, whose gradients are rounding at most.
    outputs = backbone(images[..., :32, :])
    sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
    trained = {site.block for site in method.sites.values() if _is_trained(method.local[site.key])}
    # The rate grows from zero at the first block to its full value at the last.
    assert 0 in trained and max(site.block for site in method.sites.values()) not in trained


def _is_trained(own):
    return any(p.grad is not None and p.grad.any() for p in own.parameters())


def test_the_convolution_can_start_at_xaviers_values(vit):
    torch.manual_seed(0)
    method = Convpass(5, conv_init='xavier')
    method.attach(vit)
    bound = (6 / (2 * 9 * 5)) ** 0.5
    for own in method.local.values():
        assert 0.9 * bound < own.conv.weight.abs().max() <= bound


def test_it_cannot_be_merged(vit):
    method = Convpass()
    method.attach(vit)
    with pytest.raises(MergeError, match='Convpass cannot be merged: its bypasses convolve'):
        method.merge()


def test_bad_bottleneck_and_bad_site_are_named():
    with pytest.raises(ValueError, match='bottleneck=0'):
        Convpass(bottleneck=0)
    with pytest.raises(ValueError, match=r"roles attn and ffn, not \['qkv'\]"):
        Convpass(sites=('attn', 'qkv'))
