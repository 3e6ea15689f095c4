"""NOAH against its three modules written down literally, its subnets against its supernet."""

import copy
import pickle
import random

import pytest
import torch
from backbones import BACKBONES, VIT_FIRST, evaluating
from mmpretrain.models import SwinTransformer, VisionTransformer
from torch import nn
from torch.nn import functional as F

from gleam_mm.layouts import find_layout
from gleam_mm.petl import NOAH, MergeError

MIXED = dict(prompts=[2, 0], lora=[1, 3], adapter=[0, 2])
EVERYWHERE = dict(prompts=2, lora=3, adapter=2)
# The subnet that the paper's authors published for CIFAR-100.
CIFAR = dict(
    prompts=[10, 5, 10, 1, 5, 1, 10, 1, 10, 5, 1, 10],
    lora=[10, 1, 5, 5, 1, 10, 1, 1, 1, 10, 1, 1],
    adapter=[5, 10, 10, 10, 5, 1, 1, 1, 10, 10, 10, 1],
)


def randomize(method, std=0.3):
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=std)


def attached(backbone, *arguments, **options):
    method = NOAH(*arguments, **options)
    method.attach(backbone)
    return method


def literal(vit, parts, images):
    """A ViT with a list of prompts, LoRA matrices and adapters, one of each or None a block."""
    x = vit.patch_embed(images)[0]
    x = torch.cat((vit.cls_token.expand(len(x), -1, -1), x), 1) + vit.pos_embed
    for layer, (prompts, lora, adapter) in zip(vit.layers, parts, strict=True):
        number = x.shape[1]
        if prompts is not None:
            x = torch.cat((x, prompts.expand(len(x), -1, -1)), 1)
        h = layer.ln1(x)
        weight = (
            layer.attn.qkv.weight if lora is None else layer.attn.qkv.weight + lora[1] @ lora[0]
        )
        heads = layer.attn.num_heads
        q, k, v = F.linear(h, weight, layer.attn.qkv.bias).chunk(3, -1)
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + layer.attn.proj((attention @ v).transpose(1, 2).flatten(2))
        h = layer.ffn.layers[1](F.gelu(layer.ffn.layers[0][0](layer.ln2(x))))
        if adapter is not None:
            down, down_bias, up, up_bias = adapter
            h = h + F.gelu(h @ down.T + down_bias) @ up.T + up_bias
        x = (x + h)[:, :number]
    return vit.ln1(x)[:, 0]


def test_equals_the_formulas(vit, images):
    vit.double()
    method = attached(vit, sizes=(1, 3), depths=(1, 2)).double().eval()
    randomize(method)
    subnet = dict(prompts=[2, 0], lora=[1, 3], adapter=[0, 2])
    method.activate(subnet)
    adapted = vit(images.double())[0]

    tensors = dict(method.named_parameters())

    def block(module, index, path):
        names = {'prompts': '', 'lora': '/attn/qkv', 'adapter': '/ffn/layers/1'}
        return tensors[f'local.{module}.local.layers/{index}{names[module]}.{path}']

    def part(index):
        p, r, h = (subnet[module][index] for module in ('prompts', 'lora', 'adapter'))
        return (
            block('prompts', index, 'tokens')[:p] if p else None,
            (block('lora', index, 'down')[:r], block('lora', index, 'up')[:, :r]) if r else None,
            (
                block('adapter', index, 'down.weight')[:h],
                block('adapter', index, 'down.bias')[:h],
                block('adapter', index, 'up.weight')[:, :h],
                block('adapter', index, 'up.bias'),
            )
            if h
            else None,
        )

    parts = [part(0), part(1)]
    method.detach()
    expected = literal(vit, parts, images.double())
    torch.testing.assert_close(adapted, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(('subnet', 'expected'), [(None, 654_456), (CIFAR, 320_330)])
def test_parameters_on_vit_b(subnet, expected):
    """By the formula of each module: p d, 4 r d, and 2 d h + h + d."""
    with torch.device('meta'):
        method = attached(VisionTransformer('b'), subnet)
    assert sum(parameter.numel() for parameter in method.parameters()) == expected
    sizes = subnet or dict.fromkeys(CIFAR, [10] * 12)
    count = sum(sizes['prompts']) * 768 + sum(sizes['lora']) * 4 * 768
    count += sum(2 * 768 * h + h + 768 for h in sizes['adapter'])
    assert count == expected
    if subnet is None:
        assert method.count(CIFAR) == 320_330


def test_a_subnet_is_a_slice_of_the_supernet(backbone, images):
    supernet = attached(backbone, sizes=(1, 2, 4)).eval()
    randomize(supernet, 0.1)
    for seed in range(3):
        subnet = supernet.draw(random.Random(seed))
        if not supernet.attached:
            supernet.attach(backbone)
        supernet.activate(subnet)
        expected = backbone(images)[0]
        count, state = supernet.count(subnet), supernet.slices(subnet)
        supernet.detach()
        assert not torch.equal(backbone(images)[0], expected)

        method = attached(backbone, subnet).eval()
        method.load_state_dict(state)
        assert sum(parameter.numel() for parameter in method.parameters()) == count
        assert torch.equal(backbone(images)[0], expected)
        method.detach()
        supernet.attach(backbone)


def test_depths_are_quarters_of_the_network():
    with torch.device('meta'):
        method = attached(VisionTransformer('b'))
        assert method.genes()['lora.depth'] == (12, 9, 6, 3)
    arch = dict(embed_dims=8, depths=[2, 2, 6, 2], num_heads=[1, 1, 1, 1])
    swin = attached(SwinTransformer(arch, img_size=32, patch_size=2, window_size=2))
    assert swin.genes()['prompts.depth'] == (12, 9, 6, 3)
    assert swin.genes()['adapter.11'] == (10, 5, 1)
    assert swin.count(swin.largest()) == sum(parameter.numel() for parameter in swin.parameters())
    for seed in range(20):
        subnet = method.draw(random.Random(seed))
        assert subnet.keys() == CIFAR.keys()
        for sizes in subnet.values():
            depth = sum(map(bool, sizes))
            assert depth in (3, 6, 9, 12)
            assert set(sizes[:depth]) <= {1, 5, 10}
            assert not any(sizes[depth:])


def test_every_step_of_a_supernet_gives_every_parameter_a_gradient(backbone, images):
    backbone.requires_grad_(False)
    backbone.train()
    method = attached(backbone, sizes=(1, 3))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    seen = set()
    for _ in range(8):
        optimizer.zero_grad()
        backbone(images)[0].square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
        assert not any(gradient is None for gradient in gradients.values())
        nonzero = {name for name, gradient in gradients.items() if gradient.any()}
        assert nonzero <= set(method.slices(method._current))
        seen.add(str(method._current))
        optimizer.step()
    assert len(seen) > 4
    assert method.step == 8


@pytest.mark.parametrize('subnet', [MIXED, EVERYWHERE])
def test_a_gradient_reaches_every_parameter_of_a_subnet(subnet, backbone, images):
    backbone.requires_grad_(False)
    blocks = len(find_layout(backbone).sites(['block']))
    if subnet is MIXED and blocks != 2:
        subnet = {name: sizes * (blocks // 2) for name, sizes in subnet.items()}
    method = attached(backbone, subnet)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    target = torch.randn_like(backbone(images)[0])
    reached, losses = set(), []
    for _ in range(10):
        loss = (backbone(images)[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if len(losses) < 3:
            gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
            reached |= {name for name, gradient in gradients.items() if gradient.any()}
        optimizer.step()
        losses.append(loss.item())
    assert reached == set(gradients)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize('subnet', [EVERYWHERE, None])
def test_detaching_gives_the_backbone_back(subnet, backbone, images):
    keys, plain = list(backbone.state_dict()), backbone(images)[0]
    method = attached(backbone, subnet).eval()
    assert list(backbone.state_dict()) == keys
    adapted = backbone(images)[0]
    assert not torch.equal(adapted, plain)
    with pytest.raises(RuntimeError, match='attached already'):
        method.attach(backbone)
    method.detach()
    assert torch.equal(backbone(images)[0], plain)
    assert not any('forward' in vars(module) for module in backbone.modules())
    method.attach(backbone)
    assert torch.equal(backbone(images)[0], adapted)


@pytest.mark.parametrize('subnet', [EVERYWHERE, None])
@pytest.mark.parametrize('copier', [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_are_independent(copier, subnet, backbone, images):
    method = attached(backbone, subnet).eval()
    randomize(method)
    adapted = backbone(images)[0]
    twin_backbone, twin = copier(nn.ModuleList([backbone, method]))
    assert torch.equal(twin_backbone(images)[0], adapted)
    randomize(twin)
    if subnet is None:
        twin.activate(dict(lora=1))
    assert not torch.equal(twin_backbone(images)[0], adapted)
    twin.detach()
    assert torch.equal(backbone(images)[0], adapted)


@pytest.mark.parametrize('kind', VIT_FIRST)
def test_compiles_without_graph_breaks(kind, images):
    backbone = evaluating(BACKBONES[kind]())
    method = attached(backbone, EVERYWHERE).eval()
    randomize(method, 0.1)
    expected = backbone(images)[0]
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(images)[0], expected)


def test_runs_in_bfloat16(backbone, images):
    method = attached(backbone, EVERYWHERE)
    with torch.autocast('cpu', torch.bfloat16):
        loss = backbone(images)[0].float().square().mean()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in method.parameters())


def test_modules_may_be_left_out(backbone, images):
    plain = backbone(images)[0]
    method = attached(backbone, dict(lora=2)).eval()
    assert torch.equal(backbone(images)[0], plain)  # LoRA alone starts as the pretrained model
    names = {name.split('.')[1] for name, _ in method.named_parameters()}
    assert names == {'lora'}


def test_cannot_be_merged(vit):
    with pytest.raises(MergeError, match=r'NOAH cannot be merged: prompts take part'):
        attached(vit, EVERYWHERE).merge()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(subnet=dict(prompt=1)), "unknown module 'prompt'; choose prompts, lora, adapter"),
        (dict(subnet=dict(lora=[1, 2, 3])), "'lora' has 3 sizes, but the backbone has 2 blocks"),
        (dict(subnet=dict(lora=-1)), 'give whole numbers of at least 0'),
        (dict(depths=(1, 3)), r'depths=\[1, 3\]: the backbone has 2 blocks only'),
        (dict(sizes=()), 'sizes=\\(\\): give at least one'),
        (dict(sizes=(0, 5)), 'choose a list of whole numbers of at least 1'),
    ],
)
def test_bad_arguments_are_named(options, message, vit):
    with pytest.raises(ValueError, match=message):
        attached(vit, **options)


def test_a_subnet_beyond_the_supernet_is_refused(vit):
    with pytest.raises(ValueError, match='the supernet has sizes of up to 5'):
        attached(vit, sizes=(1, 5)).activate(dict(lora=6))
