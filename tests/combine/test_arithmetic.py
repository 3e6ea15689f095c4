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
