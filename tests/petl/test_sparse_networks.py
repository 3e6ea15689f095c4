"""LT-SFT and SPT: what they choose, against choices made by hand, and what they then compute."""

import pytest
import torch
from torch.nn import functional as F
from watching import close, randomize, watch

from gleam_mm.layouts import LINEAR_ROLES, find_layout
from gleam_mm.petl import LTSFT, SPT, MergeError
from gleam_mm.petl.rehearsal import rehearsed
from gleam_mm.petl.sparse_entries import SparseEntries


def loss_of(backbone, images):
    return backbone(images)[0].square().mean()


def linears(backbone):
    return [site.module for site in find_layout(backbone).sites(LINEAR_ROLES)]


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_a_rehearsal_that_breaks_off_leaves_nothing():
    weight = torch.nn.Parameter(torch.ones(2))

    def broken():
        raise OSError('a picture is unreadable')

    with (
        pytest.raises(OSError, match='unreadable'),
        rehearsed([weight], [weight.sum, broken], steps=2, lr=0.1),
    ):
        raise AssertionError('it is not begun')
    assert weight.tolist() == [1, 1]
    assert weight.grad is None


def test_lt_sft_chooses_what_a_training_of_all_weights_moves_most(vit, images):
    weights = [linear.weight for linear in linears(vit)]
    start = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(weights, 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(vit, images).backward()
        optimizer.step()
    moved = flat(w.detach() - s for w, s in zip(weights, start, strict=True)).abs()
    expected = set(moved.topk(100).indices.tolist())
    with torch.no_grad():
        for weight, value in zip(weights, start, strict=True):
            weight.copy_(value)

    vit.requires_grad_(False)
    method = LTSFT(100, steps=3, lr=1e-3)
    method.attach(vit)
    before = vit(images)[0]
    method.calibrate([lambda: loss_of(vit, images)])
    assert torch.equal(vit(images)[0], before)
    entries = method.shared['entries']
    chosen = set(entries.positions.tolist())
    assert len(chosen & expected) >= 98  # Adam's steps are nearly alike, sums of floats are not

    torch.nn.init.normal_(entries.values)
    dense = torch.zeros(sum(weight.numel() for weight in weights))
    dense[entries.positions] = entries.values.detach()
    method.merge()
    for linear, delta, value in zip(
        linears(vit), dense.split([w.numel() for w in weights]), start, strict=True
    ):
        torch.testing.assert_close(linear.weight, value + delta.view_as(value))


def calibrated(vit, images, **options):
    vit.requires_grad_(False)
    method = SPT(rank=2, **options)
    method.attach(vit)
    batches = [images, torch.randn_like(images)]
    method.calibrate([lambda batch=batch: loss_of(vit, batch) for batch in batches])
    weights = [linear.weight.detach().clone().requires_grad_() for linear in linears(vit)]
    sensitivity = [0] * len(weights)
    for batch in batches:
        for linear in linears(vit):
            linear.weight.requires_grad_()
        gradients = torch.autograd.grad(
            loss_of(vit, batch), [linear.weight for linear in linears(vit)]
        )
        vit.requires_grad_(False)
        sensitivity = [s + g.square() for s, g in zip(sensitivity, gradients, strict=True)]
    return method, sensitivity


def test_spt_spends_its_budget_on_what_is_sensitive(vit, images):
    method, sensitivity = calibrated(vit, images, budget=1500, alpha=4.0)
    scores = flat(sensitivity)
    order = scores.argsort(descending=True)
    ends = torch.tensor([s.numel() for s in sensitivity]).cumsum(0)
    owners = torch.searchsorted(ends, order, right=True)
    sizes = [2 * sum(s.shape) for s in sensitivity]

    def spend(number):
        counts = [owners[:number].tolist().count(i) for i in range(len(sizes))]
        chosen = [c >= size / 4 for c, size in zip(counts, sizes, strict=True)]
        cost = sum(size if yes else c for yes, size, c in zip(chosen, sizes, counts, strict=True))
        return chosen, cost

    number = 0
    while spend(number + 1)[1] <= 1500:
        number += 1
    structured, cost = spend(number)
    pool = method.shared['pool']
    assert (pool.starts >= 0).tolist() == structured
    assert any(structured) and not all(structured)
    used = sum(size for yes, size in zip(structured, sizes, strict=True) if yes)
    assert used <= cost <= 1500
    singles = [int(i) for i, owner in zip(order, owners, strict=True) if not structured[owner]]
    assert set(pool.positions[pool.positions >= 0].tolist()) == set(singles[: 1500 - used])


@pytest.mark.parametrize('form', ['lora', 'adapter'])
def test_spt_adds_structures_and_single_weights(form, vit, images):
    before = vit(images)[0]
    method, _ = calibrated(vit, images, budget=3000, alpha=4.0, form=form)
    torch.testing.assert_close(vit(images)[0], before, rtol=0, atol=2e-6)  # U starts at zero
    randomize(method, 0.1)
    pool = method.shared['pool']
    notes = watch(method, vit, images)
    everything = torch.zeros(24_576)
    single = pool.positions >= 0
    everything[pool.positions[single]] = pool.values.detach()[single]
    offset = 0
    for index, (site, note) in enumerate(notes.items()):
        weight, bias = site.module.weight, site.module.bias
        m, n = weight.shape
        delta = everything[offset : offset + m * n]
        offset += m * n
        expected = note.x @ (weight + delta.view(m, n)).T + bias
        if (start := int(pool.starts[index])) >= 0:
            assert not delta.any()
            lengths = [2 * n, 2 * m, *([2, m] if form == 'adapter' else [])]
            numbers = pool.values[start : start + sum(lengths)].split(lengths)
            z = note.x @ numbers[0].view(2, n).T
            if form == 'adapter':
                z = F.gelu(z + numbers[2])
            expected = expected + z @ numbers[1].view(m, 2).T
            expected = expected + (numbers[3] if form == 'adapter' else 0)
        close(note.adapted, expected)
    assert (pool.starts >= 0).any()
    if form == 'adapter':
        with pytest.raises(MergeError, match='SPT cannot be merged: its adapters have a GELU'):
            method.merge()
    else:
        adapted = vit(images)[0]
        method.merge()
        torch.testing.assert_close(vit(images)[0], adapted, rtol=1e-5, atol=1e-5)


def test_positions_are_read_where_their_type_ends_with_the_weights():
    total = 2**31  # as many as positions of 32 bits can tell apart
    entries = SparseEntries(2, total)
    entries.positions[1] = total - 1
    twin = SparseEntries(2, total)
    twin.load_state_dict(entries.state_dict())
    assert twin.positions.tolist() == [0, total - 1]


def test_mistakes_are_named(vit, images):
    with pytest.raises(ValueError, match='number=1000000 exceeds the 24576 weights'):
        LTSFT(1_000_000).attach(vit)
    with pytest.raises(ValueError, match='budget=1000000 exceeds the 24576 weights'):
        SPT(1_000_000).attach(vit)
    method = SPT(100)
    method.attach(vit)
    state = method.state_dict()
    assert state['shared.pool.positions'].dtype == torch.int32
    for name in ('positions', 'starts'):
        crafted = {**state, f'shared.pool.{name}': state[f'shared.pool.{name}'] + 24_576}
        with pytest.raises(RuntimeError, match=f'{name} has numbers outside of'):
            method.load_state_dict(crafted)
