"""Adapter+ against its formula, its start, its drop path and its parameter count."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import AdapterPlus, MergeError


def test_every_block_follows_the_formula(backbone, images):
    method = AdapterPlus(3).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        hidden = note.y @ own.down.weight.T + own.down.bias
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
        update = hidden @ own.up.weight.T + own.up.bias
        close(note.adapted, note.y + torch.diag(own.scale).matmul(update[..., None])[..., 0])


def test_it_starts_near_the_pretrained_model(vit):
    method = AdapterPlus(64)
    method.attach(vit)
    for own in method.local.values():
        assert torch.equal(own.scale, torch.ones(32))
        for linear in (own.down, own.up):
            assert linear.weight.abs().max() <= 0.02
            assert linear.weight.std().item() == pytest.approx(
                0.0088, abs=5e-4
            )  # of the cut normal
            assert not linear.bias.any()


def test_drop_path_drops_whole_images_in_training(vit, images):
    images = images[:1].repeat(64, 1, 1, 1)
    method = AdapterPlus(4, drop_path_rate=0.25, blocks=[-1])
    plain = vit(images)[0]
    method.attach(vit)
    randomize(method)
    adapted = vit(images)[0]
    vit.train()
    with torch.no_grad():
        trained = vit(images)[0]
    dropped = [torch.allclose(row, plain[0], atol=1e-5) for row in trained]
    assert 4 <= sum(dropped) <= 30
    assert not torch.allclose(adapted[0], plain[0], atol=1e-2)


def test_parameters_on_vit_b():
    counted = params.count_config(recipes.load('vit-b_adapter-plus_vtab-cifar'))
    assert counted.trainable == counted.local == 12 * (2 * 8 * 768 + 8 + 2 * 768) == 165_984


def test_it_cannot_be_merged(vit):
    method = AdapterPlus()
    method.attach(vit)
    with pytest.raises(MergeError, match='AdapterPlus cannot be merged: its bottleneck reads'):
        method.merge()
