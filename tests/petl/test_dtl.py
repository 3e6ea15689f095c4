"""DTL and DTL+ against their recurrence, what autograd records, and their parameter counts."""

import pickle

import pytest
import torch
from backbones import BACKBONES
from mmpretrain.models import TIMMBackbone
from torch.nn import functional as F
from watching import close, randomize, watch

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import DTL


@pytest.mark.parametrize('options', [dict(start=0), dict(start=1, kernel=3), dict()])
def test_every_block_follows_the_recurrence(options, backbone, images):
    method = DTL(2, **options)
    method.attach(backbone)
    randomize(method)
    h, stage = 0, None
    for site, note in watch(method, backbone, images).items():
        h, stage = (h if site.stage == stage else 0), site.stage
        own = method.local[site.key]
        h = h + note.x @ own.down.T @ own.up.T
        if site.block < options.get('start', len(method.layout.sites(('block',))) // 2):
            assert torch.equal(note.adapted, note.y)
            continue
        theta = h / (1 + torch.exp(-100 * h))
        if method.kernel:
            theta = convolve(theta.flatten(1, -2), method.shared['kernels'][str(stage)])
        close(note.adapted.flatten(1, -2), note.y.flatten(1, -2) + theta.flatten(1, -2))


def convolve(tokens, kernel):
    """A class token passes by; the patches are a square, padded by zeros, channel by channel."""
    side = int(tokens.shape[1] ** 0.5)
    outside, inside = tokens.split([tokens.shape[1] - side**2, side**2], dim=1)
    image = F.pad(inside.unflatten(1, (side, side)), (0, 0, 1, 1, 1, 1))
    out = sum(
        image[:, i : i + side, j : j + side] * kernel[:, 0, i, j]
        for i in range(3)
        for j in range(3)
    )
    return torch.cat([outside, out.flatten(1, 2)], dim=1)


def test_autograd_records_nothing_before_the_first_adapted_block(backbone, images):
    backbone.requires_grad_(False)
    method = DTL(2)
    method.attach(backbone)
    randomize(method)
    blocks = method.layout.sites(('block',))
    recorded = {site.block: set() for site in blocks}
    for site in blocks:
        for module in site.module.modules():
            module.register_forward_hook(
                lambda m, args, out, i=site.block: recorded[i].add(
                    any(t.requires_grad for t in (args[0], out) if isinstance(t, torch.Tensor))
                ),
                prepend=True,
            )
    backbone(images)[-1].sum().backward()
    middle = len(blocks) // 2
    assert all(recorded[index] == {False} for index in range(middle))
    # The first adapted block has nothing to record yet either, but all behind it have.
    assert all(True in recorded[index] for index in range(middle + 1, len(blocks)))
    gradients = [parameter.grad for parameter in method.parameters()]
    assert gradients and all(gradient is not None for gradient in gradients)


def test_a_stage_that_adds_nothing_has_no_parameters():
    swin = BACKBONES['swin']()
    method = DTL(2, kernel=3)
    method.attach(swin)
    assert [site.stage for site in method.sites.values()] == [1, 1]
    assert sum(p.numel() for p in method.parameters()) == 2 * 4 * 32 + 9 * 32
    method = DTL(2, start=1)
    method.attach(BACKBONES['swin']())
    assert [site.stage for site in method.sites.values()] == [0, 0, 1, 1]


def test_an_idle_model_keeps_no_features(vit, images):
    method = DTL(start=0)
    method.attach(vit)
    fresh = len(pickle.dumps(method))
    vit(images.repeat(8, 1, 1, 1))
    assert len(pickle.dumps(method)) < fresh + 1000


def test_checkpointing_of_blocks_is_refused(images):
    backbone = TIMMBackbone(
        'vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2
    )
    backbone.requires_grad_(False)
    backbone.timm_model.set_grad_checkpointing()
    method = DTL(start=0)
    method.attach(backbone)
    randomize(method)
    with pytest.raises(RuntimeError, match='without gradient checkpointing'):
        backbone(images)[0].sum().backward()


@pytest.mark.parametrize(('recipe', 'extra'), [('dtl', 0), ('dtl-plus', 25 * 768)])
def test_parameters_on_vit_b(recipe, extra):
    counted = params.count_config(recipes.load(f'vit-b_{recipe}_vtab-cifar'))
    assert counted.trainable == 12 * 2 * 768 * 2 + extra
    assert counted.local == 36_864


def test_bad_numbers_are_named(vit):
    with pytest.raises(ValueError, match='kernel=4: choose an odd number'):
        DTL(kernel=4)
    with pytest.raises(ValueError, match=r'start=2: none of the adapted blocks .* from 0 to 1'):
        DTL(start=2).attach(vit)
    with pytest.raises(ValueError, match='start=-1: choose a whole number of at least 0'):
        DTL(start=-1).attach(vit)
