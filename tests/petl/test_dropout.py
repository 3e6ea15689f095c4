"""Where dropout acts: methods against their equations, under masks that tell where they are.

PyTorch draws masks in the order of the calls and of the memory; here a mask depends on the shape
that it is for, so that the literal equation meets the same one at the same place only.
"""

import copy

import pytest
import torch
from backbones import BACKBONES, evaluating
from torch import nn
from torch.nn import functional as F

from gleam_mm.layouts import find_layout
from gleam_mm.petl import VPT, Adapter, AdaptFormer, Convpass, LoRA, RepAdapter

RATE = 0.4


def drop(x, p=RATE, training=True, inplace=False):
    """Dropout by a mask that its input's shape decides."""
    if not training or not p:
        return x
    kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) >= p
    return x * kept / (1 - p)


@pytest.fixture(autouse=True)
def _known_masks(monkeypatch):
    monkeypatch.setattr(F, 'dropout', drop)


def linear(x, module):
    return x @ module.weight.T + module.bias


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def lora(method, site, x, y, drop):
    """y + alpha / r B A drop(x)."""
    pair = method.local[site.key]
    return y + 5 / 3 * drop(x) @ pair.down.T @ pair.up.T


def adapter(method, site, x, y, drop):
    """y + U drop(GELU(D y + b_D)) + b_U."""
    own = method.local[site.key]
    return y + linear(drop(F.gelu(linear(y, own.down))), own.up)


def adaptformer(method, site, x, y, drop):
    """y + s (U drop(ReLU(D x' + b_D)) + b_U); x' is x, see :func:`adapted`."""
    own = method.local[site.key]
    return y + 0.5 * linear(drop(linear(x, own.down).clamp(min=0)), own.up)


def convpass(method, site, x, y, drop):
    """y + s (U drop(act(Conv(act(D x + b_D)))) + b_U)."""
    own = method.local[site.key]
    z = own.mix(quick_gelu(linear(x, own.down)), method.layout.grid(site))
    return y + 0.5 * linear(drop(quick_gelu(z)), own.up)


def repadapter(method, site, x, y, drop):
    """What the site reads: x + s (U drop(D x + b_D) + b_U)."""
    own = method.local[site.key]
    return x + 0.5 * (drop(linear(x, own.down)) @ own.up_weight().T + own.up_bias)


METHODS = {
    'LoRA': (lambda: LoRA(3, alpha=5.0, drop_rate=RATE, sites=('qkv', 'fc2')), lora),
    'Adapter': (lambda: Adapter(3, drop_rate=RATE), adapter),
    'AdaptFormer': (lambda: AdaptFormer(3, scale=0.5, drop_rate=RATE), adaptformer),
    'Convpass': (lambda: Convpass(3, scale=0.5, drop_rate=RATE), convpass),
    'RepAdapter': (lambda: RepAdapter(4, scale=0.5, drop_rate=RATE), repadapter),
}


def adapted(method, site, x, y):
    """What a method makes of a site's input or output, given to it as the hooks do."""
    if isinstance(method, RepAdapter):
        return method.before(site, x)
    if isinstance(method, AdaptFormer):
        norm = next(s for s in method.sites.values() if s.role == 'norm' and s.block == site.block)
        method.before(norm, x)
    return method.adapt(site, x, y.clone())


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('training', [True, False])
@torch.no_grad()
def test_dropout_is_where_the_equation_has_it(name, training, vit, images):
    make, literal = METHODS[name]
    method = make()
    method.attach(vit)
    vit(images)  # tells the grid
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    method.train(training)
    sites = [site for site in method.sites.values() if site.role != 'norm']
    assert sites
    for site in sites:
        y = torch.randn(2, 17, getattr(site.module, 'out_features', 32))
        x = torch.randn(2, 17, getattr(site.module, 'in_features', 32))
        expected = literal(method, site, x, y, drop if training else lambda z: z)
        torch.testing.assert_close(adapted(method, site, x, y), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('deep', [True, False])
@torch.no_grad()
def test_prompts_are_dropped_where_they_enter_and_nowhere_else(deep, backbone, images):
    """As if the prompts of one image were the dropped ones from the start."""
    image, twin = images[:1], copy.deepcopy(backbone)
    method, dropped = VPT(3, deep, drop_rate=RATE), VPT(3, deep)
    method.attach(backbone)
    dropped.attach(twin)
    for own, theirs in zip(method.parameters(), dropped.parameters(), strict=True):
        nn.init.normal_(own)
        theirs.copy_(drop(own[None])[0])
    backbone.train()
    torch.testing.assert_close(backbone(image)[0], twin(image)[0], rtol=0, atol=1e-5)
    backbone.eval()
    assert not torch.allclose(backbone(image)[0], twin(image)[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize('deep', [True, False])
@torch.no_grad()
def test_prompts_are_dropped_for_each_image_by_itself(deep, backbone, images):
    method = VPT(3, deep, drop_rate=RATE)
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter)
    backbone.train()
    first, second = backbone(images[:1].repeat(2, 1, 1, 1))[0]
    assert not torch.allclose(first, second, rtol=0, atol=1e-3)


def attend(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """PyTorch's attention, written down."""
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return drop((scores if attn_mask is None else scores + attn_mask).softmax(-1), dropout_p) @ v


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize('training', [True, False])
@torch.no_grad()
def test_attention_by_its_steps_drops_what_the_module_drops(kind, training, monkeypatch):
    """Weights of the values, and the output of the projection, each at a rate of its own."""
    monkeypatch.setattr(F, 'scaled_dot_product_attention', attend)
    layout = find_layout(evaluating(BACKBONES[kind]()))
    site = layout.sites(['attn'])[1]
    module = site.module
    module.train(training)
    module.proj_drop.p = 0.2
    if isinstance(module.attn_drop, nn.Dropout):
        module.attn_drop.p = RATE
    else:  # MMPretrain's MultiheadAttention keeps the rate, and the function
        module.attn_drop, module.scaled_dot_product_attention = RATE, attend
    attention = layout.attention(site)
    x = torch.randn(8, 16, site.width)
    mask = torch.randn(4, 16, 16) if layout.windowed else None
    bias = attention.bias(mask, len(x))
    found = attention.project(attention.attend(*attention.heads(x), bias), x)
    expected = module(x, mask) if layout.windowed else module(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
