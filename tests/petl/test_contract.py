"""What every method promises, on every backbone."""

import copy
import pickle

import pytest
import torch
from torch import nn

from gleam_mm.petl import GLEAM, FacT, FullTuning, LinearProbe, LoRA, SLoRA

METHODS = {
    'GLEAM': lambda: GLEAM(4, top_k=2),
    'FacT': lambda: FacT(4),
    'SLoRA': lambda: SLoRA(4),
    'LoRA': lambda: LoRA(4, sites=('qkv', 'fc2')),
    'LinearProbe': LinearProbe,
    'FullTuning': FullTuning,
}
ADDING = ['GLEAM', 'FacT', 'SLoRA', 'LoRA']


def randomize(method):
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('bfloat16', [False, True])
def test_starts_as_the_pretrained_model_and_detaches_to_it(name, bfloat16, backbone, images):
    def features():
        with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
            return backbone(images)[0]

    keys, original = list(backbone.state_dict()), features()
    method = METHODS[name]().train()
    method.attach(backbone)
    assert torch.equal(features(), original)
    assert list(backbone.state_dict()) == keys
    randomize(method)
    if name in ADDING:
        assert not torch.equal(features(), original)
    method.detach()
    assert not method.attached
    assert torch.equal(features(), original)


@pytest.mark.parametrize('name', METHODS)
def test_attaching_twice_is_an_error(name, vit):
    method = METHODS[name]()
    method.attach(vit)
    with pytest.raises(RuntimeError, match='attached already; call detach'):
        method.attach(vit)


@pytest.mark.parametrize('name', ADDING)
def test_attaching_again_keeps_the_parameters(name, vit, images):
    method = METHODS[name]().eval()
    method.attach(vit)
    randomize(method)
    adapted = vit(images)[0]
    method.detach()
    method.attach(vit)
    assert torch.equal(vit(images)[0], adapted)


@pytest.mark.parametrize('copier', [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize('name', ADDING)
def test_copies_are_independent(name, copier, backbone, images):
    method = METHODS[name]().eval()
    plain = backbone(images)[0]
    method.attach(backbone)
    randomize(method)
    adapted = backbone(images)[0]

    twin_backbone, twin = copier(nn.ModuleList([backbone, method]))
    assert torch.equal(twin_backbone(images)[0], adapted)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(twin_backbone(images)[0], plain)
    assert torch.equal(backbone(images)[0], adapted)
    twin.detach()
    assert torch.equal(backbone(images)[0], adapted)
    method.detach()
    assert torch.equal(backbone(images)[0], plain)


@pytest.mark.parametrize('name', METHODS)
def test_a_gradient_reaches_every_trained_parameter(name, backbone, images):
    backbone.requires_grad_(False)
    method = METHODS[name]()
    method.attach(backbone)
    trained = dict(method.trainable_parameters())
    for parameter in trained.values():
        parameter.requires_grad_(True)
    if name == 'LinearProbe':
        assert not trained
        return
    optimizer = torch.optim.Adam(trained.values(), lr=1e-2)
    reached = set()
    for _ in range(3):
        optimizer.zero_grad()
        backbone(images)[0].square().sum().backward()
        unused = {key for key, parameter in trained.items() if parameter.grad is None}
        assert not unused  # or DDP would need find_unused_parameters
        reached |= {key for key, parameter in trained.items() if parameter.grad.abs().max() > 0}
        optimizer.step()
    assert reached == set(trained)


@pytest.mark.parametrize('name', ADDING)
def test_parameters_are_owned_once(name, backbone):
    method = METHODS[name]()
    backbone_names = dict(backbone.named_parameters())
    method.attach(backbone)
    owned = [id(parameter) for parameter in method.parameters()]
    assert len(owned) == len(set(owned)) == len(method.state_dict())
    shared, local = list(method.shared.parameters()), list(method.local.parameters())
    assert len(shared) + len(local) == len(owned)
    assert dict(backbone.named_parameters()).keys() == backbone_names.keys()


def test_full_tuning_trains_the_backbone_by_its_own_names(vit):
    method = FullTuning()
    method.attach(vit)
    expected = {f'backbone.{name}': parameter for name, parameter in vit.named_parameters()}
    assert dict(method.trainable_parameters()) == expected


@pytest.mark.parametrize('name', ADDING)
def test_compiles_without_graph_breaks(name, backbone, images):
    method = METHODS[name]().eval()
    method.attach(backbone)
    randomize(method)
    expected = backbone(images)[0]
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(images)[0], expected)


@pytest.mark.parametrize('name', ADDING)
def test_trains_under_bfloat16_autocast(name, backbone, images):
    method = METHODS[name]()
    method.attach(backbone)
    backbone.requires_grad_(False)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    target = torch.randn_like(backbone(images)[0])
    losses = []
    for _ in range(5):
        with torch.autocast('cpu', torch.bfloat16):
            loss = (backbone(images)[0].float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters())
    assert losses[-1] < losses[0]


def test_sites_must_be_a_list():
    with pytest.raises(TypeError, match=r"takes a list of roles, such as \['qkv'\]"):
        LoRA(sites='qkv')
