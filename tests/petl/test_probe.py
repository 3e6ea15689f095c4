"""Sites are proved by a pass of the backbone: what it bypasses is told, not trained in silence."""

import copy
from typing import ClassVar

import pytest
import timm
import torch
from backbones import BACKBONES, CONFIGS, WIDTH
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn import functional as F

import gleam_mm
from gleam_mm.layouts import TIMMViTLayout
from gleam_mm.models import PETLClassifier
from gleam_mm.petl import SSF, VPT, BitFit, Compose, FullTuning, LoRA
from gleam_mm.registry import MODELS

VIT = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)


def vit(**options):
    return timm.create_model('vit_tiny_patch16_224', **{**VIT, **options})


def deit3():
    """MMPretrain's, which normalises twice by ln1."""
    config = {**copy.deepcopy(CONFIGS['vit']), 'type': 'DeiT3'}
    return MODELS.build(config)


class Multiplying(Attention):
    """Multiplies by the weight itself, as timm's BEiT does."""

    def forward(self, x, attn_mask=None, is_causal=False):
        qkv = F.linear(x, self.qkv.weight, self.qkv.bias)
        q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Discarding(Attention):
    """Calls qkv, and takes something else."""

    def forward(self, x, attn_mask=None, is_causal=False):
        self.qkv(x)
        return self.proj(x)


def attending(cls):
    model = vit()
    for block in model.blocks:
        block.attn.__class__ = cls
    return model


@pytest.mark.parametrize('mode', [True, False])
@pytest.mark.parametrize('method', [LoRA(), SSF(), BitFit(), VPT(num_prompts=2), FullTuning()])
def test_the_backbone_is_left_as_it_was(backbone, method, mode):
    method = copy.deepcopy(method)
    for module in backbone.modules():
        module.training = mode
    next(backbone.parameters()).requires_grad_(False)
    last = list(backbone.parameters())[-1]
    last.grad = torch.ones_like(last)
    state = copy.deepcopy(backbone.state_dict())
    wanted = [p.requires_grad for p in backbone.parameters()]
    random = torch.get_rng_state()
    plain = copy.deepcopy(method)
    with torch.random.fork_rng():
        plain.attach(copy.deepcopy(backbone))
        drawn = torch.get_rng_state()
    with torch.no_grad():
        method.attach(backbone, probe=True)
    assert torch.equal(torch.get_rng_state(), drawn)  # it draws its parameters, and no more
    torch.set_rng_state(random)
    assert all(module.training == mode for module in backbone.modules())
    assert [p.requires_grad for p in backbone.parameters()] == wanted
    assert all(p.grad is None for p in list(backbone.parameters())[:-1])
    assert torch.equal(last.grad, torch.ones_like(last))
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[name])
    with pytest.raises(RuntimeError, match='is not known yet'):
        method.layout.grid(next(method.layout.all_sites()))


@pytest.mark.parametrize('mode', [True, False])
def test_what_a_backbone_remembers_of_a_pass_is_forgotten(mode):
    """LeViT keeps its biases of attention in evaluation, here those of before they were loaded."""
    torch.manual_seed(0)
    sizes = dict(num_classes=3, depth=(1, 1, 1))
    model, twin = (timm.create_model('levit_128s', **sizes).train(mode) for _ in range(2))
    gleam_mm.attach(model, dict(type='LoRA', rank=2))
    copy.deepcopy(model)
    state = twin.state_dict()
    for name in state:
        if name.endswith('attention_biases'):
            nn.init.normal_(state[name])
    model.load_state_dict(state, strict=False)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), twin.eval()(images))


@pytest.mark.parametrize(
    ('build', 'method', 'message'),
    [
        (
            lambda: attending(Multiplying),
            LoRA(),
            r'VisionTransformer does not compute through blocks\.0\.attn\.qkv, blocks\.1\.attn\.qkv'
            r': .* Leave qkv out of',
        ),
        (lambda: attending(Discarding), LoRA(), r'blocks\.0\.attn\.qkv, blocks\.1\.attn\.qkv'),
        (deit3, SSF(), r'DeiT3 does not compute through layers\.0\.ln2, layers\.1\.ln2'),
        (deit3, BitFit(), r'DeiT3 does not compute through layers\.0\.ln2, layers\.1\.ln2'),
        (deit3, Compose([dict(type='SSF')]), r'DeiT3 does not compute through layers\.0\.ln2'),
    ],
)
def test_what_is_bypassed_is_told(build, method, message):
    backbone = build()
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in backbone.modules()]
    with pytest.raises(RuntimeError, match=message):
        method.attach(backbone, probe=True)
    assert not method.attached
    after = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in backbone.modules()]
    assert after == hooks
    assert not [name for name in vars(backbone) if 'petl' in name]


def test_what_is_not_adapted_may_be_bypassed():
    LoRA(sites=['proj', 'fc1']).attach(attending(Multiplying), probe=True)
    LoRA().attach(deit3(), probe=True)
    FullTuning().attach(deit3(), probe=True)


class Skewed(TIMMViTLayout):
    """Tells another grid than its backbone has."""

    change: ClassVar = None

    def _read_grid(self, module, args, output):
        self._set_grid(0, type(self).change(output.shape[-2:]))


@pytest.mark.parametrize(
    'change', [lambda size: (size[1], size[0] + 1), lambda size: (size[1] * 2, size[0] // 2 - 1)]
)
def test_another_grid_is_told(change, monkeypatch):
    monkeypatch.setattr(TIMMViTLayout, '_read_grid', Skewed._read_grid)
    monkeypatch.setattr(TIMMViTLayout, 'change', change, raising=False)
    with pytest.raises(RuntimeError, match='are not what TIMMViTLayout says: 17 tokens'):
        LoRA().attach(vit(), probe=True)


def test_a_prefix_too_many_is_told(monkeypatch):
    monkeypatch.setattr(TIMMViTLayout, 'num_prefix_tokens', 0)
    with pytest.raises(RuntimeError, match='changes number 6 most, for a grid of 4 x 4 behind 0'):
        LoRA().attach(vit(), probe=True)


def test_the_doors_probe():
    with pytest.raises(RuntimeError, match='does not compute through'):
        gleam_mm.attach(attending(Multiplying), 'lora')
    parts = dict(
        petl=dict(type='SSF'), head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=2)
    )
    with pytest.raises(RuntimeError, match='DeiT3 does not compute through'):
        PETLClassifier(backbone=deit3(), **parts)
    PETLClassifier(backbone=deit3(), probe=False, **parts)


def test_on_the_meta_device_there_is_nothing_to_prove():
    model = attending(Multiplying).to('meta')  # some versions of timm do not build it there
    LoRA().attach(model, probe=True)


def test_what_cannot_be_tried_is_told():
    class Failing(Attention):
        def forward(self, x, attn_mask=None, is_causal=False):
            raise NotImplementedError('no kernel')

    method = LoRA()
    with pytest.warns(UserWarning, match=r'not proved: no kernel'):
        method.attach(attending(Failing), probe=True)
    with pytest.raises(
        RuntimeError, match='is not known yet'
    ):  # nothing is left of the one that was tried
        method.layout.grid(next(iter(method.sites.values())))


def test_images_that_are_no_squares():
    LoRA().attach(vit(img_size=(16, 48)), probe=True)
    LoRA().attach(vit(img_size=(48, 16), in_chans=1), probe=True)


def test_a_second_method_is_let_in():
    backbone = BACKBONES['vit']()
    VPT(num_prompts=2).attach(backbone, probe=True)
    with pytest.warns(UserWarning, match='already'):
        LoRA().attach(backbone, probe=True)
    assert isinstance(backbone, nn.Module)
