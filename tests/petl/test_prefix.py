"""Prefix tuning and E2VPT against attention written down head by head, and E2VPT's pruning."""

import pytest
import torch
from backbones import BACKBONES
from torch import nn
from torch.nn import functional as F
from watching import close, randomize, watch

from gleam_mm.layouts import find_layout
from gleam_mm.petl import E2VPT, VPT, PrefixTuning


def attention(x, qkv, proj, heads, extra_keys, extra_values, bias=None, finish=None):
    """Plain attention over sequences (B, N, d); extra keys and values are (heads, p, c)."""
    width = x.shape[-1] // heads
    q, k, v = (x @ qkv.weight.T + qkv.bias).chunk(3, dim=-1)
    out = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        for_all = [extra[h].expand(len(x), -1, -1) for extra in (extra_keys, extra_values)]
        keys, values = (
            torch.cat([own, of[:, :, part]], 1) for own, of in zip(for_all, (k, v), strict=True)
        )
        scores = q[:, :, part] @ keys.transpose(1, 2) / width**0.5
        if bias is not None:
            scores[:, :, extra_keys.shape[1] :] += bias[h]
        out.append(scores.softmax(-1) @ values)
    joined = torch.cat(out, -1)
    return (joined if finish is None else finish(joined)) @ proj.weight.T + proj.bias


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('kind', ['vit', 'timm-vit'])
def test_keys_and_values_stand_in_every_head(kind, shared, images):
    backbone = BACKBONES[kind]()
    backbone.eval()
    method = PrefixTuning(3, shared).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own, module = method.local[site.key], site.module
        values = own.keys if shared else own.values
        close(note.adapted, attention(note.x, module.qkv, module.proj, 2, own.keys, values))


@pytest.mark.parametrize('kind', ['timm-vit', 'timm-swin'])
@pytest.mark.parametrize('method', [PrefixTuning, VPT, E2VPT])
def test_attention_is_not_fused_where_timm_is_told_so(kind, method, images, monkeypatch):
    backbone = BACKBONES[kind]()
    backbone.eval()
    method = method(3).eval()
    method.attach(backbone)
    randomize(method)
    expected = backbone(images)[-1]

    def refuse(*_, **__):
        raise AssertionError('fused')

    monkeypatch.setattr(F, 'scaled_dot_product_attention', refuse)
    for module in backbone.modules():  # as one that is built after set_fused_attn(False)
        if hasattr(module, 'fused_attn'):
            module.fused_attn = False
    close(backbone(images)[-1], expected)


def test_what_timm_does_in_front_of_the_projection_is_done(images):
    backbone = BACKBONES['timm-vit'](scale_attn_norm=True)
    backbone.eval()
    layout = find_layout(backbone)
    sites = layout.sites(['attn'])
    if hasattr(sites[0].module, 'gate'):  # younger than the oldest version of timm
        sites[0].module.gate = nn.Linear(32, 32)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    for site in sites:
        x, own = torch.randn(2, 5, 32), layout.attention(site)
        close(own.project(own.attend(*own.heads(x), None), x), site.module(x))

    method = PrefixTuning(3).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        module = site.module

        def finish(joined, module=module, x=note.x):
            gate = getattr(module, 'gate', None)
            return module.norm(joined) * (1 if gate is None else gate(x).sigmoid())

        keys, values = method.local[site.key].keys, method.local[site.key].values
        expected = attention(note.x, module.qkv, module.proj, 2, keys, values, finish=finish)
        close(note.adapted, expected)


@pytest.mark.parametrize('kind', ['swin', 'timm-swin'])
def test_windows_know_no_position_of_the_prefix(kind, images):
    backbone = BACKBONES[kind]()
    backbone.eval()
    method = PrefixTuning(3, blocks=[0]).eval()  # whose windows are not shifted
    method.attach(backbone)
    randomize(method)
    ((site, note),) = watch(method, backbone, images).items()
    own, module = method.local[site.key], site.module
    table, index = module.relative_position_bias_table, module.relative_position_index
    bias = table[index.flatten()].view(16, 16, 2).permute(2, 0, 1)
    close(
        note.adapted,
        attention(note.x, module.qkv, module.proj, 2, own.keys, own.values, bias),
    )


def test_e2vpt_has_prompts_and_shared_keys_and_values(images):
    backbone = BACKBONES['vit']()
    backbone.eval()
    method = E2VPT(3, 2).eval()
    method.attach(backbone)
    randomize(method)
    method.kept[1] = 0
    method.kept[2, :4] = 0
    notes = watch(method, backbone, images)
    for site in method.layout.sites(('attn',)):
        note = next(note for other, note in notes.items() if other.name == site.name)
        block = method.layout.block_of(site)
        outer = next(n for other, n in notes.items() if other.name == block.name)
        tokens = method.local[block.key].tokens.clone()
        tokens[1] = 0
        tokens[2, : 4 * 2] = 0  # 16 pieces of 32 channels are two channels each
        entering = torch.cat([outer.x, tokens.expand(2, -1, -1)], 1)
        close(note.x, block.module.ln1(entering))
        keys = method.local[site.key].keys
        close(note.adapted, attention(note.x, site.module.qkv, site.module.proj, 2, keys, keys))


def test_pruning_drops_what_matters_least_and_rewinds(vit, images):
    vit.requires_grad_(False)
    method = E2VPT(4, 1, drop_rate=0.0, prune_prompts=0.5, prune_pieces=0.25, steps=2)
    method.attach(vit)
    vit.eval()
    method.eval()
    before = [parameter.clone() for parameter in method.parameters()]
    loss_of = [lambda: vit(images)[0].square().sum(), lambda: vit(-images)[0].square().sum()]
    method.calibrate(loss_of)
    assert all(torch.equal(p, b) for p, b in zip(method.parameters(), before, strict=True))
    assert not method.kept.requires_grad
    assert sorted(method.kept.sum(1).tolist())[:2] == [0, 0]
    assert method.kept.sum() == 2 * 16 - 8

    # The same by hand: two steps of Adam, and the gradient of a mask of ones.
    twin = E2VPT(4, 1, drop_rate=0.0)
    method.detach()
    twin.attach(vit)
    twin.load_state_dict({**method.state_dict(), 'kept': torch.ones(4, 16)})
    twin.eval()
    optimizer = torch.optim.Adam(twin.parameters(), 1e-3)
    for loss in loss_of:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    importance = torch.zeros(4)
    for loss in loss_of:
        gradient = 0
        blocks = twin.layout.sites(('block',))
        tokens = [twin.local[site.key].tokens for site in blocks]
        for token, grad in zip(tokens, torch.autograd.grad(loss(), tokens), strict=True):
            gradient = gradient + (token * grad).sum(1)
        importance += gradient.abs()
    assert set(importance.topk(2).indices.tolist()) == set(
        method.kept.sum(1).nonzero().flatten().tolist()
    )


def test_without_pruning_no_batch_is_looked_at(vit):
    method = E2VPT()
    method.attach(vit)
    method.calibrate([lambda: pytest.fail('it looked at a batch')])


def test_mistakes_are_named(vit):
    with pytest.raises(ValueError, match='pieces=5 does not divide the token width 32'):
        E2VPT(pieces=5).attach(vit)
    method = PrefixTuning(2)
    method.attach(vit)
    site = next(iter(method.sites.values()))
    with pytest.raises(RuntimeError, match='is called with attn_mask, which no prefix'):
        site.module(torch.zeros(1, 4, 32), attn_mask=torch.zeros(4, 4))
