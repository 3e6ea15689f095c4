"""CoDA: how many tokens pass, and the soft top-k against its optimality conditions."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from watching import randomize

from gleam_mm.petl import CoDA
from gleam_mm.petl.coda import soft_top_k


def test_the_soft_top_k_solves_its_problem():
    torch.manual_seed(0)
    scores = 3 * torch.randn(4, 12, dtype=torch.double)
    weights = soft_top_k(scores, 5, steps=300)
    torch.testing.assert_close(weights.sum(1), torch.full((4,), 5.0, dtype=torch.double))
    assert weights.max() <= 1 + 1e-6
    # Where no bound holds a weight, score minus its logarithm is the same multiplier; at a bound
    # of one it is no smaller.
    for row, score in zip(weights, scores, strict=True):
        free = row < 1 - 1e-6
        multipliers = score - row.log()
        assert free.sum() > 1
        assert multipliers[free].max() - multipliers[free].min() < 1e-5
        assert (multipliers[~free] >= multipliers[free].max() - 1e-5).all()


def test_a_quarter_of_the_patches_passes_and_the_rest_is_not_computed(vit, images):
    vit.requires_grad_(False)
    vit.eval()
    counted = {}
    for rate in (0.25, 0.75):
        method = CoDA(4, rate=rate)
        method.attach(vit)
        method.eval()
        randomize(method)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            vit(images)
        counted[rate] = counter.get_total_flops()
        method.detach()
    # Of 16 patches of two images, 4 or 12 pass two FFNs of 2 x 32 x 128.
    assert counted[0.75] - counted[0.25] == 2 * 2 * 8 * 2 * (2 * 32 * 128)


def test_training_and_evaluation_agree_and_the_gate_learns(vit, images):
    vit.requires_grad_(False)
    method = CoDA(4, drop_rate=0.0)
    method.attach(vit)
    randomize(method)
    vit.eval()
    evaluated = vit(images)[0]
    vit.train()
    trained = vit(images)[0]
    torch.testing.assert_close(trained, evaluated, rtol=1e-5, atol=1e-5)
    assert method.losses() == {}
    trained.square().sum().backward()
    first = method.layout.sites(('block',))[0]
    assert method.local[first.key].router.weight.grad.abs().max() > 0


def test_a_share_beyond_all_is_refused():
    with pytest.raises(ValueError, match=r'rate=1\.5'):
        CoDA(rate=1.5)
