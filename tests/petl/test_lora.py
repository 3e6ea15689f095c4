"""LoRA against HF PEFT's on timm's ViT, and against MMPretrain's LoRAModel on its own ViT."""

import peft
import pytest
import timm
import torch
from mmpretrain.models import LoRAModel, TIMMBackbone, VisionTransformer
from watching import close, watch

from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.petl import LoRA, MergeError

RANK, ALPHA = 3, 5.0


def randomize(method):
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def assert_same(mine, theirs, my_pairs, their_pairs):
    """Same outputs and, site by site, same gradients, in double precision."""
    assert mine.dtype == theirs.dtype == torch.float64
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    mine.square().mean().backward()
    theirs.square().mean().backward()
    assert len(my_pairs) == len(their_pairs) > 0
    for pair, (down, up) in zip(my_pairs, their_pairs, strict=True):
        torch.testing.assert_close(pair.down.grad, down.grad, rtol=0, atol=1e-6)
        torch.testing.assert_close(pair.up.grad, up.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize('sites', [('qkv',), LINEAR_ROLES])
def test_equals_hf_peft_on_timm_vit(sites, images):
    options = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
    backbone = TIMMBackbone('vit_tiny_patch16_224', **options)
    backbone.eval()
    reference = timm.create_model('vit_tiny_patch16_224', num_classes=0, **options).eval()
    reference.load_state_dict(backbone.timm_model.state_dict())
    # The patch embedding has a `proj` as well.
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=rf'blocks.*\.({"|".join(sites)})'
    )
    reference = peft.inject_adapter_in_model(config, reference)

    method = LoRA(RANK, ALPHA, sites=sites)
    method.attach(backbone)
    randomize(method)
    pairs, theirs = [], []
    for site in method.layout.sites(sites):
        layer = reference.get_submodule(site.name.removeprefix('timm_model.'))
        pairs.append(method.local[site.key])
        theirs.append((layer.lora_A['default'].weight, layer.lora_B['default'].weight))
        with torch.no_grad():
            theirs[-1][0].copy_(pairs[-1].down)
            theirs[-1][1].copy_(pairs[-1].up)
    images = images.double()
    for module in (backbone, method, reference):
        module.double()
    assert_same(backbone(images)[0], reference.forward_features(images), pairs, theirs)


@pytest.mark.parametrize('sites', [('qkv',), LINEAR_ROLES])
def test_equals_mmpretrain_lora_model(sites, images):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    config = dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=8)
    paths = dict(qkv=r'attn\.qkv', proj=r'attn\.proj', fc1=r'layers\.0\.0', fc2=r'ffn\.layers\.1')
    targets = [dict(type='.*' + paths[role]) for role in sites]
    reference = LoRAModel(config, alpha=ALPHA, rank=RANK, targets=targets)
    reference.eval()
    backbone = VisionTransformer(arch, img_size=32, patch_size=8)
    backbone.eval()
    # LoRAModel's state dict leaves out the weights of the backbone.
    backbone.load_state_dict(
        {
            name.replace('original_layer.', ''): parameter
            for name, parameter in reference.module.named_parameters()
            if 'lora_' not in name
        }
    )

    method = LoRA(RANK, ALPHA, sites=sites)
    method.attach(backbone)
    randomize(method)
    pairs, theirs = [], []
    for site in method.layout.sites(sites):
        layer = reference.module.get_submodule(site.name)
        pairs.append(method.local[site.key])
        theirs.append((layer.lora_down.weight, layer.lora_up.weight))
        with torch.no_grad():
            theirs[-1][0].copy_(pairs[-1].down)
            theirs[-1][1].copy_(pairs[-1].up)
    images = images.double()
    for module in (backbone, method, reference):
        module.double()
    assert_same(backbone(images)[0], reference.module(images)[0], pairs, theirs)


def test_parameters_on_vit_b():
    with torch.device('meta'):
        method = LoRA(8)
        method.attach(VisionTransformer('b'))
    assert sum(parameter.numel() for parameter in method.parameters()) == 294_912


def test_dropout_acts_in_training_only(vit, images):
    method = LoRA(4, drop_rate=0.5)
    method.attach(vit)
    randomize(method)
    vit.eval()
    assert torch.equal(vit(images)[0], vit(images)[0])
    vit.train()
    assert not torch.equal(vit(images)[0], vit(images)[0])


def test_bad_rank_and_bad_site_are_named(vit):
    with pytest.raises(ValueError, match='rank=0'):
        LoRA(rank=0)
    with pytest.raises(ValueError, match=r"'layers.0.ffn' .* is a .*FFN; choose"):
        LoRA(sites=('ffn',)).attach(vit)


def test_a_gate_weighs_the_update_of_each_token(backbone, images):
    method = LoRA(2, gate=True).eval()
    method.attach(backbone)
    assert all(not p.any() for own in method.local.values() for p in own.gate.parameters())
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        gate = 1 / (1 + torch.exp(-(note.x @ own.gate.weight.T + own.gate.bias)))
        close(note.adapted, note.y + gate * 4 * (note.x @ own.down.T @ own.up.T), 1e-4)
    with pytest.raises(MergeError, match='a gate weighs its update for each token'):
        method.merge()
