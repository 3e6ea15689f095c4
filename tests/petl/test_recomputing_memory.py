"""What a method reads is computed again for its gradients instead of kept."""

import copy

import pytest
import torch
from backbones import BACKBONES, CONFIGS
from torch import nn
from torch.func import functional_call, grad
from torch.multiprocessing.reductions import StorageWeakRef

import gleam_mm
from gleam_mm.registry import MODELS

LINEARS = ['qkv', 'proj', 'fc1', 'fc2']
LORA = dict(type='LoRA', rank=2, sites=LINEARS)
READ = 2 * 17 * (32 + 32 + 128) * 4
"""Bytes that a block's Linears read behind its two norms and its activation, of two images."""


def attached(kind='vit', recompute=True, petl=LORA):
    backbone = BACKBONES[kind]().requires_grad_(False)
    backbone.train()
    method = MODELS.build(copy.deepcopy(petl))
    method.attach(backbone, recompute=recompute)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone, method


def read_by_methods(backbone):
    """(hooks) The memory behind norms and activations of all blocks but the first, once called."""
    found = []

    def see(module, args, output):
        found.append((StorageWeakRef(output.untyped_storage()), output.nbytes))

    for name, module in backbone.named_modules():
        if name.split('.')[:2] == ['layers', '1'] and isinstance(module, nn.LayerNorm | nn.GELU):
            module.register_forward_hook(see)
    return found


def kept(recompute, images, petl=LORA):
    """How many bytes of what methods read live on when the backbone has been called."""
    backbone, _ = attached(recompute=recompute, petl=petl)
    found = read_by_methods(backbone)
    output = backbone(images)[-1]
    assert output.requires_grad
    assert sum(size for _, size in found) == READ
    return sum(size for storage, size in found if not storage.expired())


def test_nothing_that_methods_read_behind_norms_and_activations_is_kept(images):
    assert kept(True, images) == 0
    assert kept(False, images) == READ


@pytest.mark.parametrize(
    'petl',
    [
        dict(type='GLEAM', rank=4),
        dict(type='Compose', methods=[LORA, dict(type='GLEAM', rank=4)]),
        dict(type='HFPeft', config=dict(peft_type='LORA', r=4), sites=['fc2']),
        dict(type='AdaptFormer', bottleneck=4),
    ],
    ids=['GLEAM', 'two methods', 'in place of a Linear', 'beside a sublayer'],
)
def test_several_ways_to_read_keep_nothing(petl, images):
    assert kept(True, images, petl) == 0


def loss_of(output):
    """Not the sum of a norm's output, nor of its squares: they hardly change, and only round."""
    return (output * torch.arange(output.numel()).sin().view_as(output)).sum()


def gradients(backbone, method, images):
    torch.manual_seed(3)
    loss = loss_of(backbone(images)[-1])
    return torch.autograd.grad(loss, list(method.parameters()), create_graph=True)


def test_gradients_of_gradients_are_those_of_the_plain_pass(images):
    # A Swin of MMPretrain's, for PyTorch has no second gradient of a ViT's fused attention.
    backbone, method = attached('swin', petl=dict(type='GLEAM', rank=4, alpha=0.1))
    found = []
    for recompute in (True, False):
        method.recompute = recompute
        first = gradients(backbone, method, images)
        penalty = sum(gradient.square().sum() for gradient in first)
        found.append((*first, *torch.autograd.grad(penalty, list(method.parameters()))))
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-6 * plain.abs().max().item())


def test_a_graph_that_is_kept_gives_the_same_gradients_again(images):
    backbone, method = attached()
    loss = loss_of(backbone(images)[-1])
    first = torch.autograd.grad(loss, list(method.parameters()), retain_graph=True)
    for mine, again in zip(
        first, torch.autograd.grad(loss, list(method.parameters())), strict=True
    ):
        assert torch.equal(mine, again)


def test_a_norm_that_is_changed_before_the_backward_pass_is_named(images):
    backbone, _ = attached()
    loss = loss_of(backbone(images)[-1])
    with torch.no_grad():
        backbone.layers[1].ln2.bias.add_(1)
    with pytest.raises(RuntimeError, match=r'LayerNorm .* changed in place .*recompute=False'):
        loss.backward()


def test_norms_that_are_lent_for_a_pass_are_computed_again_as_they_were(images):
    backbone, method = attached()
    lent = {
        name: parameter + torch.randn_like(parameter)
        for name, parameter in backbone.named_parameters()
        if '.ln' in name
    }
    found = []
    for recompute in (True, False):
        method.recompute = recompute
        loss = loss_of(functional_call(backbone, lent, (images,))[-1])
        found.append(torch.autograd.grad(loss, list(method.parameters())))
    assert all(map(torch.equal, *found))


def test_gradients_by_torch_func(images):
    backbone, method = attached()
    backbone.petl = method
    trained = {f'petl.{name}': p.detach() for name, p in method.named_parameters()}

    def loss(parameters):
        return loss_of(functional_call(backbone, parameters, (images,))[-1])

    expected = torch.autograd.grad(loss({}), list(method.parameters()))
    for mine, plain in zip(grad(loss)(trained).values(), expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-6 * plain.abs().max().item())


@pytest.mark.parametrize('kind', BACKBONES)
def test_nothing_is_left_of_it_when_the_method_is_detached(kind):
    backbone, method = attached(kind)
    assert any(module._forward_hooks for module in backbone.modules())
    method.detach()
    assert not any(module._forward_hooks for module in backbone.modules())


@pytest.mark.parametrize('recompute', [True, False])
def test_it_is_an_option_wherever_a_method_is_attached(recompute):
    petl = dict(type='Compose', methods=[LORA])
    options = {} if recompute else dict(recompute=False)  # by default
    frozen = dict(backbone=CONFIGS['vit'], petl=petl, allow_random_backbone=True, **options)
    classifier = MODELS.build(
        dict(type='PETLClassifier', head=dict(type='LinearClsHead', in_channels=32, num_classes=3))
        | copy.deepcopy(frozen)
    )
    inside = MODELS.build(dict(type='PETLBackbone') | copy.deepcopy(frozen))
    model = BACKBONES['timm-vit']().timm_model
    methods = classifier.petl, inside.petl, gleam_mm.attach(model, petl, **options)
    for method in methods:
        assert [member.recompute for member in method.members()] == [recompute] * 2


@pytest.mark.slow
def test_under_a_compiler_it_rests(images):
    backbone, method = attached(petl=dict(type='FacT', rank=4))
    expected = gradients(backbone, method, images)
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    for mine, plain in zip(gradients(compiled, method, images), expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5 * plain.abs().max().item())


@pytest.mark.parametrize('in_place', [False, True])
def test_what_a_users_hook_makes_of_an_activation_is_not_taken_for_its_output(in_place, images):
    found = []
    for recompute in (True, False):
        torch.manual_seed(0)
        vit, method = attached(recompute=recompute, petl=dict(LORA, sites=['fc1', 'fc2']))
        activation = vit.layers[1].ffn.layers[0][1]
        activation.register_forward_hook(lambda m, a, y: y.mul_(3) if in_place else 3 * y)
        method.merge()
        method.unmerge()  # which sets the hooks anew, behind the user's
        method.double()
        loss = vit.double()(images.double())[0].square().sum()
        found.append(torch.autograd.grad(loss, list(method.parameters())))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)
