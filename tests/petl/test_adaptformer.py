"""AdaptFormer against its formula, its parameter count, and what it keeps between batches."""

import pickle

import pytest
import torch
from mmpretrain.models import SwinTransformer
from torch import nn

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import AdaptFormer, MergeError

# Where the residual stream enters the FFN half of a block, by kind of layout.
SECOND_NORM = {'ViTLayout': 'ln2'}


def test_every_block_follows_the_formula(backbone, images):
    """Block + s W_u ReLU(W_d x' + b_d) + b_u, with x' the input of the block's second norm."""
    method = AdaptFormer(3, scale=0.5).eval()
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    name = SECOND_NORM.get(type(method.layout).__name__, 'norm2')
    blocks = method.layout.sites(('block',))
    plain, residual, adapted = {}, {}, {}
    for site in blocks:
        norm = getattr(site.module, name)
        norm.register_forward_pre_hook(
            lambda module, args, site=site: residual.update({site: args[0].clone()})
        )
        site.module.register_forward_hook(
            lambda module, args, output, site=site: plain.update({site: output.clone()}),
            prepend=True,
        )
        site.module.register_forward_hook(
            lambda module, args, output, site=site: adapted.update({site: output.clone()})
        )
    with torch.no_grad():
        backbone(images)
        assert len(adapted) == len(blocks) > 0
        for site in blocks:
            own = method.local[site.key]
            x = residual[site].flatten(1, -2)
            z = (x @ own.down.weight.T + own.down.bias).clamp(min=0)
            update = 0.5 * (z @ own.up.weight.T + own.up.bias)
            expected = plain[site].flatten(1, -2) + update
            torch.testing.assert_close(adapted[site].flatten(1, -2), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('bottleneck', [8, 64])
def test_parameters_on_vit_b(bottleneck):
    options = {'model.petl.bottleneck': bottleneck}
    counted = params.count_config(recipes.load('vit-b_adaptformer_vtab-cifar', options))
    assert counted.trainable == counted.local == 12 * (2 * bottleneck * 768 + bottleneck + 768)
    assert bottleneck != 8 or counted.trainable == 156_768


def test_an_idle_model_keeps_no_features(backbone, images):
    method = AdaptFormer()
    method.attach(backbone)
    fresh = len(pickle.dumps(method))
    backbone(images.repeat(8, 1, 1, 1))
    # The size of the token grid is all that a forward pass may leave behind.
    assert len(pickle.dumps(method)) < fresh + 1000


def test_it_is_not_under_drop_path(images):
    """Where drop path always drops, blocks pass on their input, and the bottleneck still acts."""
    backbone = SwinTransformer(
        dict(embed_dims=16, depths=[2], num_heads=[2]),
        img_size=32,
        patch_size=2,
        window_size=4,
        out_indices=(0,),
    )
    for module in backbone.modules():
        if type(module).__name__ == 'DropPath':
            module.drop_prob = 1.0 - 1e-9
    plain = backbone(images)[0]
    method = AdaptFormer(drop_rate=0.0)
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert not torch.allclose(backbone(images)[0], plain)


def test_checkpointing_inside_of_a_block_is_refused(images):
    backbone = SwinTransformer(
        dict(embed_dims=16, depths=[2], num_heads=[2]),
        img_size=32,
        patch_size=2,
        window_size=4,
        with_cp=True,
        out_indices=(0,),
    )
    backbone.requires_grad_(False)
    method = AdaptFormer()
    method.attach(backbone)
    with pytest.raises(RuntimeError, match='set with_cp=False in the backbone'):
        backbone(images)


def test_dropout_acts_in_training_only(vit, images):
    method = AdaptFormer(drop_rate=0.5)
    method.attach(vit)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    vit.eval()
    assert torch.equal(vit(images)[0], vit(images)[0])
    vit.train()
    assert not torch.equal(vit(images)[0], vit(images)[0])


def test_it_cannot_be_merged(vit):
    method = AdaptFormer()
    method.attach(vit)
    with pytest.raises(MergeError, match='AdaptFormer cannot be merged: its bottleneck reads'):
        method.merge()


def test_bad_bottleneck_is_named():
    with pytest.raises(ValueError, match='bottleneck=0'):
        AdaptFormer(bottleneck=0)
