"""Heads that want something else than one vector, norms that are none, memory formats, masks."""

import copy

import pytest
import timm
import torch
from backbones import CONFIGS, WIDTH, evaluating
from mmpretrain.models.selfsup import MAEViT, MixMIMPretrainTransformer
from mmpretrain.structures import DataSample

import gleam_mm
from gleam_mm.layouts import find_layout
from gleam_mm.models import PETLClassifier
from gleam_mm.petl import GLEAM, SSF, LoRA

VIT = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)


def test_a_distilled_deit_trains_both_its_heads(images):
    model = PETLClassifier(
        backbone=dict(copy.deepcopy(CONFIGS['vit']), type='DistilledVisionTransformer'),
        petl=dict(type='GLEAM', rank=2),
        head=dict(type='DeiTClsHead', in_channels=WIDTH, num_classes=3),
        allow_random_backbone=True,
    )
    samples = [DataSample().set_gt_label(0) for _ in images]
    assert model.predict(images, samples)[0].pred_score.shape == (3,)
    sum(model.loss(images, samples).values()).backward()
    heads = (model.head.layers.head, model.head.layers.head_dist)
    assert all(head.weight.grad.any() for head in heads)


def test_a_head_that_pools_by_itself_gets_the_map(images):
    model = PETLClassifier(
        backbone=copy.deepcopy(CONFIGS['swin']),
        petl=dict(type='LoRA', rank=2),
        head=dict(type='CSRAClsHead', in_channels=WIDTH, num_classes=3, num_heads=1, lam=0.1),
        allow_random_backbone=True,
    )
    assert model(images, mode='tensor').shape == (len(images), 3)
    samples = [DataSample().set_gt_score(torch.tensor([1.0, 0, 1])) for _ in images]
    sum(model.loss(images, samples).values()).backward()
    assert all(p.grad is not None for _, p in model.petl.trainable_parameters())


def test_a_neck_of_ours_is_built_outside_of_any_scope(images):
    model = PETLClassifier(
        backbone=copy.deepcopy(CONFIGS['timm-vit']),
        petl=dict(type='LoRA', rank=2),
        neck=dict(type='TokenPool', mode='cls'),
        head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=3),
        allow_random_backbone=True,
    )
    assert model(images, mode='tensor').shape == (len(images), 3)


@pytest.mark.parametrize(
    ('name', 'options', 'norms'),
    [
        ('vit_tiny_patch16_224', {}, {'norm'}),
        ('vit_tiny_patch16_224', dict(global_pool='avg'), {'fc_norm'}),  # `norm` is an Identity
        ('eva02_base_patch14_224', dict(qkv_bias=True), {'fc_norm'}),
    ],
)
def test_ssf_scales_the_norms_that_there_are(name, options, norms, images):
    model = timm.create_model(name, num_classes=3, **VIT, **options).eval()
    sites = find_layout(model).sites(['norm'])
    assert {site.name for site in sites if site.block is None} == norms
    before = model(images)
    method = SSF(std=0.0)
    method.attach(model, probe=True)
    torch.testing.assert_close(model(images), before)
    for _, parameter in method.trainable_parameters():
        torch.nn.init.normal_(parameter, 1.0, 0.1)
    adapted = model(images)
    assert not torch.allclose(adapted, before, atol=1e-6)
    if 'eva' not in name:  # whose keys have no bias
        method.merge()
        torch.testing.assert_close(model(images), adapted, atol=1e-5, rtol=1e-4)


def test_ssf_scales_rms_norms(images):
    model = timm.create_model('vit_tiny_patch16_224', num_classes=3, **VIT, norm_layer='rmsnorm')
    method = SSF(sites=['norm'])
    method.attach(evaluating(model), probe=True)
    assert len(method.local) == 5
    model(images).sum().backward()
    assert all(p.grad.any() for _, p in method.trainable_parameters())


def test_gleam_takes_channels_last(images):
    model = timm.create_model('vit_tiny_patch16_224', num_classes=3, **VIT).eval()
    gleam_mm.attach(model, dict(type='GLEAM', rank=4))
    torch.nn.init.normal_(model.petl.shared['projections']['0'].up)
    before, shapes = model(images), {n: p.shape for n, p in model.petl.named_parameters()}
    model.to(memory_format=torch.channels_last)
    assert {n: p.shape for n, p in model.petl.named_parameters()} == shapes
    assert model.patch_embed.proj.weight.is_contiguous(memory_format=torch.channels_last)
    given = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(given), before)
    model.double()
    assert all(p.dtype == torch.float64 for p in model.petl.parameters())
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(images.double()), model(images.double()))


@pytest.mark.parametrize('method', [LoRA(), GLEAM(rank=2)])
@pytest.mark.parametrize(
    'backbone',
    [
        MAEViT(CONFIGS['vit']['arch'], img_size=32, patch_size=8),
        MixMIMPretrainTransformer(
            dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2]), img_size=64
        ),
    ],
    ids=lambda backbone: type(backbone).__name__,
)
def test_what_masks_patches_is_refused(backbone, method):
    with pytest.raises(ValueError, match=f'{type(backbone).__name__} masks patches at random'):
        method.attach(backbone)
