"""Sums of tensors against HF PEFT's, and against what their papers say."""

import pytest
import torch
from peft.utils import merge_utils

from gleam_mm.combine import arithmetic, lowrank


@pytest.fixture
def tasks():
    return [torch.randn(7, 5) for _ in range(3)]


@pytest.mark.parametrize('density', [0.2, 0.5, 1.0])
def test_ties_is_that_of_peft(tasks, density):
    weights = [1.0, 0.5, 2.0]
    ours = arithmetic.ties(tasks, weights, density)
    theirs = merge_utils.ties(tasks, torch.tensor(weights), density)
    torch.testing.assert_close(ours, theirs)


def test_dare_drops_at_random_and_keeps_the_mean():
    task = torch.ones(200, 200)
    drawn = arithmetic.dare([task], [2.0], 0.1, torch.Generator().manual_seed(0))
    assert drawn.unique().tolist() == [0.0, 20.0]
    assert (drawn != 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    again = arithmetic.dare([task], [2.0], 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def sums(tensors, weights):
    """The same sum by each of the three, of which two leave nothing out."""
    generator = torch.Generator().manual_seed(0)
    yield arithmetic.weighted(tensors, weights)
    yield arithmetic.dare(tensors, weights, 1.0, generator)
    alike = [tensor.abs() for tensor in tensors]  # on whose sign all agree
    yield arithmetic.ties(alike, [weight * len(weights) for weight in weights], 1.0)


def test_half_precision_is_rounded_once():
    tensors = [torch.rand(500).half() for _ in range(20)]
    weights = [0.05] * 20
    exact = torch.stack(tensors).double().mean(0)
    for total in sums(tensors, weights):
        assert total.dtype == torch.float16
        torch.testing.assert_close(total.double(), exact, rtol=2**-11, atol=0)


def test_the_widest_of_the_types_stays():
    tensors = [torch.rand(50).half(), torch.rand(50), torch.rand(50).bfloat16()]
    for order in (tensors, tensors[::-1]):
        exact = sum(weight * t.double() for weight, t in zip([0.5, 0.3, 0.2], order, strict=True))
        for total in sums(order, [0.5, 0.3, 0.2]):
            assert total.dtype == torch.float32
            torch.testing.assert_close(total.double(), exact, rtol=1e-6, atol=0)


def test_products_add_exactly_and_are_cut_best():
    updates = [lowrank.Product(torch.randn(9, 2), torch.randn(2, 6)) for _ in range(2)]
    expected = 0.3 * updates[0].up @ updates[0].down - 2 * updates[1].up @ updates[1].down
    total = lowrank.concatenated(updates, [0.3, -2.0])
    torch.testing.assert_close(total.matrix, expected)

    u, s, vh = torch.linalg.svd(expected)
    for rank in (1, 3, 6):
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        for product, kept, whole in (
            lowrank.cut(total, rank),
            lowrank.cut_matrix(expected, rank),
        ):
            assert product.up.shape == (9, rank)
            torch.testing.assert_close(product.matrix, best, rtol=1e-4, atol=1e-5)
            assert kept == pytest.approx(s[:rank].square().sum().item(), rel=1e-4)
            assert whole == pytest.approx(s.square().sum().item(), rel=1e-4)
    shares = (s.square().cumsum(0) / s.square().sum()).tolist()
    for energy in (0.1, 0.7, 0.95):
        first = next(i for i, share in enumerate(shares) if share >= energy)
        assert lowrank.rank_of_energy(expected, energy) == first + 1
    assert lowrank.rank_of_energy(torch.zeros(3, 3), 0.9) == 1
