"""VPT against literal prompted transformers: prompts concatenated to the tokens of each window."""

import copy
import math

import pytest
import torch
from backbones import BACKBONES, evaluating
from mmpretrain.models import SwinTransformer, VisionTransformer
from torch import nn
from torch.nn import functional as F

from gleam_mm.petl import VPT, MergeError


def attached(backbone, *args, **kwargs):
    method = VPT(*args, **kwargs).eval()
    method.attach(backbone)
    return method.to(next(backbone.parameters()).dtype)


def randomize(backbone):
    """Biases, norms and position tables that are no zeros and ones, so that mistakes show."""
    for name, parameter in backbone.double().named_parameters():
        if 'relative_position' in name:
            nn.init.normal_(parameter)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=2 * parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=float(name.endswith('weight')), std=0.3)


def given(method, index):
    return list(method.parameters())[index if method.deep else 0]


def literal_vit(backbone, images, method):
    """Equations 4 to 8 of the paper, prompts between class token and patches."""
    if hasattr(backbone, 'timm_model'):
        vit = backbone.timm_model
        x, blocks, norm = vit._pos_embed(vit.patch_embed(images)), vit.blocks, vit.norm
    else:
        x = backbone.patch_embed(images)[0]
        x = torch.cat((backbone.cls_token.expand(len(x), -1, -1), x), 1) + backbone.pos_embed
        blocks, norm = backbone.layers, backbone.ln1
    number = method.num_prompts
    for index, block in enumerate(blocks):
        if index == 0:
            x = torch.cat((x[:, :1], given(method, 0).expand(len(x), -1, -1), x[:, 1:]), 1)
        elif method.deep:
            prompts = given(method, index).expand(len(x), -1, -1)
            x = torch.cat((x[:, :1], prompts, x[:, 1 + number :]), 1)
        x = block(x)
    return norm(torch.cat((x[:, :1], x[:, 1 + number :]), 1))


def layer_norm(x, norm):
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def literal_window_attention(attention, prompts, tokens, table, visible):
    """Softmax attention over the prompts and the tokens (w x w, C) of one window of one image."""
    number, area = len(prompts), len(tokens)
    x = torch.cat((prompts, tokens))
    qkv = x @ attention.qkv.weight.T + attention.qkv.bias
    heads = []
    for head, (q, k, v) in enumerate(
        zip(*(part.chunk(attention.num_heads, -1) for part in qkv.chunk(3, -1)), strict=True)
    ):
        scores = q @ k.T / math.sqrt(q.shape[-1])
        side = math.isqrt(area)
        for i in range(area):
            for j in range(area):
                dy, dx = i // side - j // side, i % side - j % side
                scores[number + i, number + j] += table[
                    (dy + side - 1) * (2 * side - 1) + dx + side - 1, head
                ]
                if not visible[i, j]:
                    scores[number + i, number + j] -= 100
        heads.append(scores.softmax(-1) @ v)
    out = torch.cat(heads, -1) @ attention.proj.weight.T + attention.proj.bias
    return out[:number], out[number:]


def literal_swin_block(parts, prompts, grid, window, shift):
    """One block on the prompts (p, C) and the grid (H, W, C) of one image."""
    norm1, attention, norm2, ffn = parts
    height, width, _ = grid.shape
    if min(height, width) <= window:
        shift = 0
    normed = layer_norm(grid, norm1).roll((-shift, -shift), (0, 1))
    region = torch.zeros(height, width, dtype=torch.long)
    for axis, size in ((0, height), (1, width)):
        place = torch.arange(size)
        # Three regions an axis: not rolled over, next to the seam, and beyond it.
        part = (place >= size - window).long() + (place >= size - shift).long()
        region += (part if axis == 1 else 3 * part[:, None]) * bool(shift)
    out, own = torch.zeros_like(grid), []
    for top in range(0, height, window):
        for left in range(0, width, window):
            index = slice(top, top + window), slice(left, left + window)
            tokens, ids = normed[index].flatten(0, 1), region[index].flatten()
            prompted, attended = literal_window_attention(
                attention,
                layer_norm(prompts, norm1),
                tokens,
                attention.relative_position_bias_table,
                ids[:, None] == ids,
            )
            own.append(prompted)
            out[index] = attended.view(window, window, -1)
    grid = grid + out.roll((shift, shift), (0, 1))
    prompts = prompts + torch.stack(own).mean(0)
    return (
        prompts + ffn(layer_norm(prompts, norm2)),
        grid + ffn(layer_norm(grid, norm2)),
    )


def literal_swin(backbone, image, method):
    """The prompted Swin for one image (1, 3, H, W), as prompts and grid of the last stage."""
    timm = hasattr(backbone, 'timm_model')
    if timm:
        model = backbone.timm_model
        grid, stages = model.patch_embed(image)[0], model.layers
    else:
        x, size = backbone.patch_embed(image)
        grid, stages = x[0].view(*size, -1), backbone.stages
    index, prompts = 0, None
    for number, stage in enumerate(stages):
        if timm and number:
            grid, prompts = merge(stage.downsample, grid, prompts, timm)
        for block_number, block in enumerate(stage.blocks):
            if method.deep or index == 0:
                prompts = given(method, index)
            if timm:
                parts = block.norm1, block.attn, block.norm2, block.mlp
            else:
                parts = block.norm1, block.attn.w_msa, block.norm2, block.ffn.layers
            prompts, grid = literal_swin_block(parts, prompts, grid, 4, 2 * (block_number % 2))
            index += 1
        if not timm and stage.downsample is not None:
            grid, prompts = merge(stage.downsample, grid, prompts, timm)
    return layer_norm(grid, model.norm if timm else backbone.norm1)


def merge(merging, grid, prompts, timm):
    """Patch merging of the grid, and of each prompt as a patch of four equal tokens."""
    if timm:
        merged = [merging(prompt.expand(1, 2, 2, -1)).flatten() for prompt in prompts]
        return merging(grid[None])[0], torch.stack(merged)
    merged = [merging(prompt.expand(1, 4, -1), (2, 2))[0].flatten() for prompt in prompts]
    size = grid.shape[:2]
    x, size = merging(grid.flatten(0, 1)[None], size)
    return x[0].view(*size, -1), torch.stack(merged)


@pytest.mark.parametrize('deep', [False, True])
@pytest.mark.parametrize('name', ['vit', 'timm-vit'])
def test_vit_equals_the_literal_one(name, deep, images):
    backbone = evaluating(BACKBONES[name]())
    randomize(backbone)
    images, plain = images.double(), copy.deepcopy(backbone)
    method = attached(backbone, 3, deep)
    expected = literal_vit(plain, images, method)
    if name == 'vit':
        expected = expected[:, 0]
    torch.testing.assert_close(backbone(images)[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize('deep', [False, True])
@pytest.mark.parametrize('name', ['swin', 'timm-swin'])
def test_swin_equals_the_literal_one(name, deep, images):
    backbone = evaluating(BACKBONES[name]())
    randomize(backbone)
    images, plain = images.double(), copy.deepcopy(backbone)
    method = attached(backbone, 3, deep)
    with torch.no_grad():
        expected = torch.stack([literal_swin(plain, image[None], method) for image in images])
        actual = backbone(images)[0]
        unprompted = plain(images)[0]
    if name == 'swin':
        expected = expected.permute(0, 3, 1, 2)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
    assert (actual - unprompted).abs().max() > 0.1


def count(method):
    return sum(parameter.numel() for parameter in method.parameters())


def test_parameters_on_vit_b():
    with torch.device('meta'):
        assert count(attached(VisionTransformer('b'), 50, deep=False)) == 50 * 768 == 38_400
        assert count(attached(VisionTransformer('b'), 50)) == 50 * 12 * 768 == 460_800


def test_parameters_on_swin():
    arch = dict(embed_dims=16, depths=[2, 2, 18, 2], num_heads=[1, 1, 1, 1])
    assert count(attached(SwinTransformer(arch), 5, deep=False)) == 5 * 16
    widths = 2 * 16 + 2 * 32 + 18 * 64 + 2 * 128
    assert count(attached(SwinTransformer(arch), 5)) == 5 * widths


def test_prompts_start_in_the_paper_s_range(vit):
    tokens = attached(vit, 200).local['layers/0'].tokens
    bound = math.sqrt(6 / (3 * 8 * 8 + 32))
    assert 0.95 * bound < tokens.abs().max() <= bound


def test_intermediate_outputs_hold_no_prompts(images):
    arch = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=128)
    for out_type, shape in (('raw', (2, 17, 32)), ('featmap', (2, 32, 4, 4))):
        backbone = evaluating(
            VisionTransformer(arch, 32, 8, out_indices=[0, 1, 2], out_type=out_type)
        )
        for deep in (False, True):
            method = attached(backbone, 5, deep)
            assert [tuple(out.shape) for out in backbone(images)] == [shape] * 3
            method.detach()


def test_blocks_may_have_different_numbers_of_prompts(backbone, images):
    blocks = 4 if 'swin' in type(getattr(backbone, 'timm_model', backbone)).__name__.lower() else 2
    plain = backbone(images)[0]
    numbers = [0] * (blocks - 1) + [2]
    method = attached(backbone, numbers)
    assert len(list(method.parameters())) == 1
    assert not torch.equal(backbone(images)[0], plain)
    with torch.no_grad():
        torch.testing.assert_close(
            attached_without_prompts(backbone, method, images), plain, rtol=0, atol=1e-5
        )


def attached_without_prompts(backbone, method, images):
    """The output when every block gets none of its prompts."""
    for prompts in method.local.values():
        prompts.tokens = nn.Parameter(prompts.tokens[:0])
    return backbone(images)[0]


@pytest.mark.parametrize('deep', [False, True])
def test_dropout_acts_in_training_only(deep, backbone, images):
    attached(backbone, 4, deep, drop_rate=0.5)
    assert torch.equal(backbone(images)[0], backbone(images)[0])
    backbone.train()
    assert not torch.equal(backbone(images)[0], backbone(images)[0])


def test_images_of_a_batch_do_not_meet(backbone, images):
    attached(backbone, 4, deep=False)
    apart = torch.cat([backbone(image[None])[0] for image in images])
    torch.testing.assert_close(backbone(images)[0], apart, rtol=0, atol=1e-5)


def test_images_of_other_sizes(images):
    for name in ('vit', 'swin'):
        for deep in (False, True):
            backbone = evaluating(BACKBONES[name]())
            attached(backbone, 4, deep)
            larger = F.interpolate(images, 48)
            assert torch.isfinite(backbone(larger)[0]).all()
            assert backbone(images)[0].shape[0] == 2


def test_a_pass_that_broke_off_leaves_nothing(vit, images):
    method = attached(vit, 4, deep=False)
    expected = vit(images)[0]

    def interrupt(module, args):
        raise KeyboardInterrupt

    handle = vit.layers[1].attn.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        vit(images)
    handle.remove()
    copy.deepcopy(nn.ModuleList([vit, method]))
    assert torch.equal(vit(images)[0], expected)


def test_a_block_alone_is_an_error(vit, images):
    attached(vit, 4, deep=False)
    vit(images)
    with pytest.raises(RuntimeError, match=r"prompts at 'layers.1' are not known"):
        vit.layers[1](torch.randn(2, 17, 32))


def test_gradient_checkpointing_is_an_error(images):
    arch = dict(embed_dims=16, depths=[2, 2], num_heads=[2, 2])
    swin = SwinTransformer(arch, 32, 2, window_size=4, out_indices=(1,), with_cp=True)
    attached(swin, 4)
    with pytest.raises(RuntimeError, match='without gradient checkpointing'):
        swin(images.requires_grad_())[0].sum().backward()


def test_merging_says_why_not(backbone):
    with pytest.raises(MergeError, match='prompts take part in the attention'):
        attached(backbone).merge()


def test_bad_numbers_are_named(vit):
    with pytest.raises(ValueError, match='num_prompts=0'):
        VPT(0)
    with pytest.raises(ValueError, match='shallow form has one number'):
        VPT([1, 2], deep=False)
    with pytest.raises(ValueError, match='at least 0'):
        VPT([1, -1])
    with pytest.raises(ValueError, match='3 numbers, but 2 blocks are adapted'):
        attached(vit, [1, 2, 3])


@pytest.mark.parametrize('deep', [True, False])
def test_a_share_of_the_prompts_enters_as_a_fourier_transform(deep, vit, images):
    method = VPT(4, deep=deep, fourier=0.5)
    method.attach(vit)
    (first,) = method.layout.sites(('block',), [0])
    tokens = next(method.parameters())
    # As the definition has it: a sum over prompts and channels.
    p, q = torch.arange(2.0), torch.arange(32.0)
    phase = torch.einsum('kp,lq->klpq', torch.outer(p, p) / 2, torch.ones(32, 32))
    phase = phase + (torch.outer(q, q) / 32)[None, :, None]
    expected = (torch.cos(2 * torch.pi * phase) * tokens[:2]).sum((2, 3))
    torch.testing.assert_close(method.prompts(first)[:2], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(method.prompts(first)[2:], tokens[2:])
    adapted = vit(images)[0]
    with torch.no_grad():  # the same model as one of plain prompts, which are what entered
        for own in method.parameters():
            own[:2] = torch.fft.fft(torch.fft.fft(own[:2], dim=-1), dim=-2).real
    method.fourier = 0.0
    torch.testing.assert_close(vit(images)[0], adapted)


def test_a_share_beyond_all_prompts_is_refused():
    with pytest.raises(ValueError, match=r'fourier=1\.5: choose a share from 0 to 1'):
        VPT(4, fourier=1.5)


def test_a_gate_blends_what_enters_a_block_with_what_it_makes(vit, images):
    method = VPT(3, deep=False, gate=-1.0)
    method.attach(vit)
    vit.eval()
    method.eval()
    first, second = (site.module for site in method.layout.sites(('block',)))
    seen = {}
    for name, module in (('first', first), ('second', second)):
        module.register_forward_pre_hook(
            lambda m, args, name=name: seen.__setitem__(name, args[0].clone())
        )
    with torch.no_grad():
        vit(images)
        prompts = method.shared['prompts'].tokens.expand(2, -1, -1)
        gate = 1 / (1 + torch.tensor(1.0).exp())
        out = type(first).forward(first, seen['first'])[:, -3:]
    torch.testing.assert_close(seen['second'][:, -3:], gate * out + (1 - gate) * prompts)
    with pytest.raises(ValueError, match='every block of the deep form has prompts of its own'):
        VPT(3, gate=0.0)
