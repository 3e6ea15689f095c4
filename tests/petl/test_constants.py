"""What depends on parameters alone is computed once for an evaluation, and never out of date."""

import copy

import pytest
import torch
from backbones import BACKBONES, evaluating
from torch.func import functional_call

from gleam_mm.petl import constants_folded
from gleam_mm.registry import MODELS

METHODS = {
    'GLEAM': dict(type='GLEAM', rank=4),
    'GLEAM, 4 bits': dict(type='GLEAM', rank=4, bits=4),
    'GLEAM, wired otherwise': dict(type='GLEAM', rank=4, gate='token', moe_side='wide'),
    'FacT-TK': dict(type='FacT', rank=4, form='tk'),
    'LoRA, 1 bit': dict(type='LoRA', rank=4, bits=1),
    'Adapter, 2 bits': dict(type='Adapter', bottleneck=4, bits=2),
    'ABBA': dict(type='ABBA', rank=4),
    'KAdaptation': dict(type='KAdaptation', number=4),
    'MSPLoRA': dict(type='MSPLoRA', ranks=[3, 2, 1], groups=2),
    'MLAE': dict(type='MLAE', rank=4),
    'MoKA': dict(type='Kronecker', number=2, size=8, gate=True),
    'LoRETTA': dict(type='LoRETTA', rank=4, tensor_rank=2),
    'Compose': dict(
        type='Compose', methods=[dict(type='GLEAM', rank=4), dict(type='LoRA', bits=4)]
    ),
}


def attached(petl):
    backbone = evaluating(BACKBONES['vit']())
    method = MODELS.build(copy.deepcopy(petl)).eval()
    method.attach(backbone)
    move(method)
    return backbone, method


@torch.no_grad()
def move(method):
    for parameter in method.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize('petl', METHODS.values(), ids=METHODS)
@torch.no_grad()
def test_outputs_are_those_of_the_plain_pass_also_when_parameters_change(petl, images):
    backbone, method = attached(petl)
    for change in (lambda: None, lambda: move(method)):
        change()
        method.fold_constants(False)
        expected = backbone(images)[-1]
        method.fold_constants()
        assert torch.equal(backbone(images)[-1], expected)
        assert torch.equal(backbone(images)[-1], expected)  # what was kept, this time
        move(method)
        found = backbone(images)[-1]
        method.fold_constants(False)
        assert torch.equal(found, backbone(images)[-1])
        assert not torch.equal(found, expected)


def changes():
    def load(method, other):
        method.load_state_dict(other.state_dict())

    def assign(method, other):
        method.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)

    def replace_data(method, other):  # as Module.to() does
        theirs = dict(other.named_parameters())
        for name, parameter in method.named_parameters():
            parameter.data = theirs[name].detach().clone()

    def step(method, other):
        parameters = list(method.parameters())
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        for mine, theirs in zip(parameters, other.parameters(), strict=True):
            mine.grad = mine.detach() - theirs.detach()
        optimizer.step()

    return [load, assign, replace_data, step]


@pytest.mark.parametrize('change', changes(), ids=lambda change: change.__name__)
@torch.no_grad()
def test_every_way_to_change_parameters_is_noticed(change, images):
    backbone, method = attached(METHODS['GLEAM'])
    other_backbone, other = attached(METHODS['GLEAM'])
    other_backbone.load_state_dict(backbone.state_dict())
    method.fold_constants()
    backbone(images)
    change(method, other)
    expected = other_backbone(images)[-1]
    torch.testing.assert_close(backbone(images)[-1], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_parameters_that_are_lent_for_a_pass_are_used(images):
    backbone, method = attached(METHODS['GLEAM'])
    before = backbone(images)[-1]
    backbone.petl = method
    method.fold_constants()
    backbone(images)
    lent = {f'petl.{name}': p + 0.1 for name, p in method.named_parameters()}
    found = functional_call(backbone, lent, (images,))[-1]
    assert torch.equal(backbone(images)[-1], before)
    for name, parameter in method.named_parameters():
        parameter.copy_(lent[f'petl.{name}'])
    torch.testing.assert_close(found, backbone(images)[-1], rtol=1e-5, atol=1e-6)


def test_training_and_gradients_compute_anew(images):
    backbone, method = attached(METHODS['GLEAM'])
    method.fold_constants()
    with torch.no_grad():
        backbone(images)
    output = backbone(images)[-1]
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().max() > 0
        for name, p in method.named_parameters()
        if not name.endswith('noise')
    )
    backbone.train()
    with torch.no_grad():
        assert not torch.equal(backbone(images)[-1], backbone(images)[-1])  # the gate's noise


@torch.no_grad()
def test_mixed_precision_has_constants_of_its_own(images):
    backbone, method = attached(METHODS['GLEAM'])

    def outputs():
        plain = backbone(images)[-1]
        with torch.autocast('cpu', torch.bfloat16):
            return plain, backbone(images)[-1], backbone(images)[-1]

    expected = outputs()
    method.fold_constants()
    for found, wanted in zip(outputs(), expected, strict=True):
        assert torch.equal(found, wanted)


@torch.no_grad()
def test_a_copy_has_constants_of_its_own_parameters(images):
    backbone, method = attached(METHODS['GLEAM'])
    method.fold_constants()
    expected = backbone(images)[-1]
    twin, _ = copy.deepcopy((backbone, method))
    assert torch.equal(twin(images)[-1], expected)
    move(method)
    assert torch.equal(twin(images)[-1], expected)
    assert not torch.equal(backbone(images)[-1], expected)


@torch.inference_mode()
def test_parameters_of_inference_mode_are_never_out_of_date(images):
    backbone, method = attached(METHODS['GLEAM'])
    before = backbone(images)[-1]
    method.fold_constants()
    assert torch.equal(backbone(images)[-1], before)
    move(method)  # of which nothing tells
    folded = backbone(images)[-1]
    method.fold_constants(False)
    assert torch.equal(folded, backbone(images)[-1])
    assert not torch.equal(folded, before)


@torch.no_grad()
def test_within_a_context_it_is_computed_once(images, monkeypatch):
    backbone, method = attached(METHODS['GLEAM'])
    backbone.petl = method
    calls = []
    local_weight = type(method).local_weight
    monkeypatch.setattr(
        type(method), 'local_weight', lambda self, site: calls.append(1) or local_weight(self, site)
    )
    with constants_folded(backbone):
        for _ in range(3):
            backbone(images)
    assert len(calls) == 8  # Linears
    backbone(images)
    assert len(calls) == 16
