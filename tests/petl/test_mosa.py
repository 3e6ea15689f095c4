"""MoSA: an AdaptFormer of which each step trains one part."""

import copy

import torch
from watching import randomize

from gleam_mm.petl import AdaptFormer, MoSA


def attached(method, vit):
    vit.requires_grad_(False)
    method.attach(vit)
    return method


def test_it_computes_as_an_adaptformer_and_trains_the_drawn_parts(vit, images):
    method = attached(MoSA(4, 3, drop_rate=0.0), vit)
    randomize(method)
    plain = AdaptFormer(4, drop_rate=0.0)
    vit.train()
    output = vit(images)[0]
    output.square().sum().backward()
    gradients = {name: p.grad for name, p in method.named_parameters()}
    drawn = dict(zip(('down', 'up'), method._drawn, strict=True))
    masks = {
        f'local.{key}.{name}.weight': getattr(own, name).parts == part
        for key, own in method.local.items()
        for name, part in drawn.items()
    }
    state = {k: v for k, v in method.state_dict().items() if k != 'step'}
    method.detach()
    attached(plain, vit)
    plain.load_state_dict(state)
    theirs = vit(images)[0]
    torch.testing.assert_close(output, theirs)
    theirs.square().sum().backward()
    for name, parameter in plain.named_parameters():
        expected = parameter.grad * masks.get(name, torch.tensor(1.0))
        torch.testing.assert_close(gradients[name], expected)


def test_parts_cover_a_matrix_evenly_and_each_gets_its_turn(vit, images):
    method = attached(MoSA(4, 3, seed=1), vit)
    for own in method.local.values():
        counts = own.down.weight.new_tensor([int((own.down.parts == i).sum()) for i in range(3)])
        assert counts.sum() == own.down.weight.numel() and counts.max() - counts.min() <= 1
    vit.train()
    drawn = []
    for _ in range(30):
        vit(images)
        drawn.append(method._drawn)
    assert {down for down, _ in drawn} == {up for _, up in drawn} == {0, 1, 2}
    assert any(down != up for down, up in drawn)
    assert method.step == 30


def test_a_resumed_training_draws_on(vit, images):
    method = attached(MoSA(4, 3), vit)
    vit.train()
    for _ in range(5):
        vit(images)
    state = copy.deepcopy(method.state_dict())
    vit(images)
    expected = method._drawn
    method.detach()
    twin = attached(MoSA(4, 3), vit)
    twin.load_state_dict(state)
    vit(images)
    assert twin._drawn == expected
