"""GLoRA against its formula written down literally, its subnets against its supernet."""

import copy
import itertools
import json
import pickle
import random

import pytest
import torch
from backbones import BACKBONES, VIT_FIRST, evaluating
from mmpretrain.models import VisionTransformer
from torch import nn

from gleam_mm.petl import GLoRA, MergeError

FORMS = dict(
    A=('low-rank', 'vector', 'scalar', 'none'),
    B=('low-rank', 'vector', 'scalar', 'none'),
    C=('low-rank', 'vector', 'none'),
    D=('vector', 'scalar', 'none'),
    E=('vector', 'scalar', 'none'),
)
EVERYTHING = dict(A='low-rank', B='low-rank', C='low-rank', D='vector', E='vector')
LIGHT = dict(A='vector', B='scalar', C='vector', D='scalar', E='vector')


def randomize(method, std=0.3):
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=std)


def attached(backbone, **options):
    method = GLoRA(3, **options)
    method.attach(backbone)
    return method


def literal(linear, supports, forms, x):
    """The paper's formula, with every tensor of its full size."""
    rows, columns = linear.weight.shape

    def full(name, height, width):
        if forms[name] == 'none':
            return torch.zeros(height, width).double()
        up = supports[f'{name}_up']
        if forms[name] == 'low-rank':
            return up @ supports[f'{name}_down']
        if forms[name] == 'vector':
            return up[:, 0][:, None].repeat(1, width)
        return up[0, 0].repeat(height, width)

    def vector(name):
        if forms[name] == 'none':
            return torch.zeros(rows).double()
        return supports[name] if forms[name] == 'vector' else supports[name][0].repeat(rows)

    weight, bias = linear.weight, linear.bias
    changed = weight + weight * full('A', rows, columns) + full('B', rows, columns)
    prompt = (weight @ full('C', columns, 1))[:, 0]
    return x @ changed.T + prompt + bias + bias * vector('D') + vector('E')


def test_every_path_equals_the_formula(vit):
    vit.double()
    nn.init.normal_(vit.layers[0].ffn.layers[1].bias)
    method = attached(vit, sites=['fc2']).eval().double()
    randomize(method)
    (site, _) = method.layout.sites(['fc2'])
    supports = dict(method.local[site.key].named_parameters())
    x = torch.randn(2, 5, 128).double()
    paths = [dict(zip(FORMS, forms, strict=True)) for forms in itertools.product(*FORMS.values())]
    assert len(paths) == 432
    for forms in paths:
        method.activate(forms)
        expected = literal(site.module, supports, forms, x)
        torch.testing.assert_close(site.module(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(('rank', 'expected'), [(1, 525_360), (2, 884_832)])
def test_parameters_of_the_supernet_on_vit_b(rank, expected):
    with torch.device('meta'):
        method = GLoRA(rank)
        method.attach(VisionTransformer('b'))
    assert sum(parameter.numel() for parameter in method.parameters()) == expected
    assert method.count(method.largest()) == expected


def test_a_subnet_is_a_slice_of_the_supernet(backbone, images):
    supernet = attached(backbone).eval()
    randomize(supernet, 0.1)
    subnet = supernet.draw(random.Random(1))
    supernet.activate(subnet)
    expected = backbone(images)[0]
    count, state = supernet.count(subnet), supernet.slices(subnet)
    whole = supernet.count(supernet.largest())
    supernet.detach()
    assert not torch.equal(backbone(images)[0], expected)

    method = attached(backbone, subnet=subnet).eval()
    method.load_state_dict(state)
    assert sum(parameter.numel() for parameter in method.parameters()) == count
    assert torch.equal(backbone(images)[0], expected)
    assert 0 < count < whole


def test_an_inherited_subnet_trains_apart_from_its_supernet(vit):
    supernet = attached(vit)
    state = supernet.slices(LIGHT)
    for tensor in state.values():
        tensor.fill_(1)
    assert not any((parameter == 1).all() for parameter in supernet.parameters())


def test_steps_draw_the_same_paths_from_the_same_seed(vit, images):
    def paths(seed, first=0):
        vit.train()
        method = attached(vit, seed=seed)
        method.step.fill_(first)
        drawn = []
        for _ in range(first, 4):
            torch.rand(3)  # nothing global decides
            random.random()
            vit(images)
            drawn.append(method._current)
        method.detach()
        return drawn

    drawn = paths(seed=5)
    assert drawn == paths(seed=5)
    assert drawn[2:] == paths(seed=5, first=2)  # as after a resumption
    assert drawn != paths(seed=6)
    assert len({str(path) for path in drawn}) == 4
    forms = [tensors for path in drawn for tensors in path.values()]
    for name, options in FORMS.items():
        assert {tensors[name] for tensors in forms} == set(options)


def test_evaluation_runs_the_activated_subnet_or_the_largest(vit, images):
    method = attached(vit)
    randomize(method)
    vit.eval()
    largest = vit(images)[0]
    method.activate(EVERYTHING)
    assert torch.equal(vit(images)[0], largest)
    method.activate(LIGHT)
    light = vit(images)[0]
    assert not torch.equal(light, largest)
    vit.train()
    vit(images)
    vit.eval()
    assert torch.equal(vit(images)[0], light)
    method.activate(None)
    assert torch.equal(vit(images)[0], largest)
    assert method.step == 1


def test_every_step_of_a_supernet_gives_every_parameter_a_gradient(backbone, images):
    backbone.requires_grad_(False)
    backbone.train()
    method = attached(backbone)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    reached = set()
    for _ in range(12):
        optimizer.zero_grad()
        backbone(images)[0].square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
        assert not any(gradient is None for gradient in gradients.values())
        nonzero = {name for name, gradient in gradients.items() if gradient.any()}
        used = method.slices(method._current)
        assert nonzero <= set(used) < set(gradients)
        reached |= nonzero
        optimizer.step()
    assert len(reached) > 0.8 * len(gradients)


@pytest.mark.parametrize('forms', [EVERYTHING, LIGHT])
def test_merging_equals_the_adapted_model(forms, backbone, images):
    backbone.double()
    originals = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    method = attached(backbone, subnet=forms).eval().double()
    randomize(method, 0.1)
    expected = backbone(images.double())[0]
    method.merge()
    torch.testing.assert_close(backbone(images.double())[0], expected, rtol=0, atol=1e-9)
    method.unmerge()
    assert all(
        torch.equal(tensor, originals[name]) for name, tensor in backbone.state_dict().items()
    )
    assert torch.equal(backbone(images.double())[0], expected)


def test_a_supernet_cannot_be_merged(vit):
    with pytest.raises(MergeError, match=r'is a supernet.*gleam-mm search'):
        attached(vit).merge()


def test_a_linear_without_bias_has_no_support_for_it(images):
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=128)
    backbone = VisionTransformer(arch, img_size=32, patch_size=8, qkv_bias=False)
    backbone.eval()
    method = attached(backbone, sites=['qkv']).eval()
    assert 'D' not in {name.rpartition('.')[2] for name, _ in method.named_parameters()}
    randomize(method)
    assert torch.isfinite(backbone(images)[0]).all()
    subnet = dict(A='vector', E='vector')
    method.detach()
    method = attached(backbone, sites=['qkv'], subnet=subnet)
    with pytest.raises(MergeError, match='no bias that could take the shift'):
        method.merge()


@pytest.mark.parametrize('forms', [EVERYTHING, LIGHT, None])
@pytest.mark.parametrize('copier', [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_are_independent(copier, forms, vit, images):
    plain = vit(images)[0]
    method = attached(vit, subnet=forms).eval()
    randomize(method)
    adapted = vit(images)[0]
    twin_backbone, twin = copier(nn.ModuleList([vit, method]))
    assert torch.equal(twin_backbone(images)[0], adapted)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(twin_backbone(images)[0], plain)
    assert torch.equal(vit(images)[0], adapted)
    method.detach()
    assert torch.equal(vit(images)[0], plain)


@pytest.mark.skipif(torch.__version__ < '2.10', reason='loses sight of what a Site remembers')
@pytest.mark.parametrize('kind', VIT_FIRST)
@pytest.mark.parametrize('forms', [EVERYTHING, LIGHT])
def test_compiles_without_graph_breaks(forms, kind, images):
    backbone = evaluating(BACKBONES[kind]())
    method = attached(backbone, subnet=forms).eval()
    randomize(method, 0.1)
    expected = backbone(images)[0]
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(images)[0], expected)


@pytest.mark.parametrize('forms', [EVERYTHING, LIGHT, None])
def test_starts_as_the_pretrained_model_and_trains_in_bfloat16(forms, backbone, images):
    backbone.requires_grad_(False)
    with torch.autocast('cpu', torch.bfloat16):
        original = backbone(images)[0]
        method = attached(backbone, subnet=forms)
        assert torch.equal(backbone(images)[0], original)
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-3)
    target = torch.randn_like(original.float())
    losses = []
    for _ in range(8):
        with torch.autocast('cpu', torch.bfloat16):
            loss = (backbone(images)[0].float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_subnet_may_come_from_a_file(vit, tmp_path):
    names = ['layers.0.attn.qkv', 'layers.1.attn.qkv']
    file = tmp_path / 'subnet.json'
    file.write_text(json.dumps({name: dict(B='low-rank') for name in names}))
    method = attached(vit, subnet=str(file), sites=['qkv'])
    assert method.subnet[names[0]] == dict(A='none', B='low-rank', C='none', D='none', E='none')
    assert len(list(method.parameters())) == 2 * len(names)


@pytest.mark.parametrize(
    ('subnet', 'message'),
    [
        (dict(A='matrix'), r"'layers.0.attn.qkv' has A='matrix'; choose low-rank, vector"),
        (dict(C='scalar'), "C='scalar'; choose low-rank, vector, none"),
        ({'layers.0.attn.qkv': {}}, "the Linear 'layers.0.attn.proj' of the backbone is missing"),
    ],
)
def test_a_bad_subnet_is_named(subnet, message, vit):
    with pytest.raises(ValueError, match=message):
        attached(vit, subnet=subnet)


def test_a_bad_file_is_named(vit, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.json.*no such file'):
        GLoRA(subnet=tmp_path / 'none.json')
    (tmp_path / 'list.json').write_text('[]')
    with pytest.raises(ValueError, match=r'list\.json: holds no subnet, but a list'):
        GLoRA(subnet=tmp_path / 'list.json')
    (tmp_path / 'deep.json').write_text('[' * 100_000)
    with pytest.raises(ValueError, match=r'deep\.json: no JSON file with a subnet'):
        GLoRA(subnet=tmp_path / 'deep.json')


def test_a_fixed_subnet_has_nothing_to_activate(vit):
    with pytest.raises(RuntimeError, match='is no supernet'):
        attached(vit, subnet=LIGHT).activate(LIGHT)
