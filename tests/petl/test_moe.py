"""The folded mixture of experts against the literal equations 8 to 12."""

import copy
import itertools
import pickle

import pytest
import torch
from literal import expert, gate, imbalance, mixture

from gleam_mm.layouts import Grid
from gleam_mm.petl import ConvMoE

CHOICES = [(1, 1), (2, 1), (3, 2), (4, 1), (4, 2), (4, 4), (5, 3)]  # experts, and chosen ones
SCALES = {
    'default': lambda n: None,
    'reversed': lambda n: tuple(range(n, 0, -1)),
    'equal': lambda n: (2,) * n,
    'sparse': lambda n: (1, 3, 4, 7, 8)[:n],
}
OPTIONS = {
    'bias': dict(expert_bias=True),
    'residual': dict(residual=0.7),
    'normalized': dict(normalize=True),
    'softmax first': dict(renormalize=False),
    'noise floor': dict(noise_floor=0.5),
    'all': dict(
        expert_bias=True, residual=1.0, normalize=True, renormalize=False, noise_floor=0.01
    ),
}
GRIDS = [Grid(0, 4, 4), Grid(1, 5, 3), Grid(2, 1, 1), Grid(1, 1, 7), Grid(0, 7, 7)]


def gradients(output, leaves):
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    grads = torch.autograd.grad((output * weights).sum(), leaves, allow_unused=True)
    # A gate over all experts of one image each still leaves the noise unused in evaluation.
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]


@pytest.mark.parametrize(('n', 'k'), CHOICES)
@pytest.mark.parametrize('scales', SCALES)
@pytest.mark.parametrize('decides', ['image', 'token'])
def test_folded_equals_literal(n, k, scales, decides):
    for grid, training in itertools.product(GRIDS, (False, True)):
        moe = ConvMoE(3, n, k, SCALES[scales](n), gate=decides).double().train(training)
        tokens = grid.prefix + grid.height * grid.width
        z = torch.randn(2, tokens, 3, dtype=torch.float64)
        z.requires_grad_(True)
        leaves = [z, moe.kernels, moe.gate, moe.noise]

        torch.manual_seed(1)
        folded = moe(z, grid)
        torch.manual_seed(1)
        decisions = (2,) if decides == 'image' else (2, tokens)
        noise = torch.randn(*decisions, n, dtype=torch.float64) if training else None
        literal = mixture(z, grid, moe.kernels, moe.scales, moe.gate, moe.noise, k, noise, decides)

        torch.testing.assert_close(folded, literal, rtol=0, atol=1e-10)
        for mine, theirs in zip(gradients(folded, leaves), gradients(literal, leaves), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('k', [1, 2, 4])
@pytest.mark.parametrize('decides', ['image', 'token'])
def test_options_equal_literal(options, k, decides):
    options = OPTIONS[options]
    for grid, training in itertools.product(GRIDS[:3], (False, True)):
        moe = ConvMoE(3, 4, k, gate=decides, **options).double().train(training)
        tokens = grid.prefix + grid.height * grid.width
        z = torch.randn(2, tokens, 3, dtype=torch.float64, requires_grad=True)
        leaves = [z, moe.kernels, moe.gate, moe.noise]
        if moe.biases is not None:
            torch.nn.init.normal_(moe.biases)
            leaves.append(moe.biases)

        torch.manual_seed(1)
        folded = moe(z, grid)
        torch.manual_seed(1)
        decisions = (2,) if decides == 'image' else (2, tokens)
        noise = torch.randn(*decisions, 4, dtype=torch.float64) if training else None
        literal = mixture(
            z, grid, moe.kernels, moe.scales, moe.gate, moe.noise, k, noise, decides, moe.biases,
            residual=options.get('residual', 0.0),
            normalize=options.get('normalize', False),
            floor=options.get('noise_floor', 0.0),
            renormalize=options.get('renormalize', True),
        )  # fmt: skip

        torch.testing.assert_close(folded, literal, rtol=0, atol=1e-10)
        for mine, theirs in zip(gradients(folded, leaves), gradients(literal, leaves), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(('n', 'k'), [(4, 1), (4, 2), (4, 4), (3, 2), (2, 1)])
@pytest.mark.parametrize('renormalize', [True, False])
@pytest.mark.parametrize('decides', ['image', 'token'])
def test_balance_loss_equals_literal(n, k, renormalize, decides):
    options = dict(gate=decides, renormalize=renormalize, noise_floor=0.01, balance=0.3)
    moe = ConvMoE(3, n, k, **options).double()
    z = torch.randn(5, 2 + 12, 3, dtype=torch.float64, requires_grad=True)
    leaves = [z, moe.gate, moe.noise]
    h = z[:, 2:].mean(1) if decides == 'image' else z.flatten(0, 1)

    torch.manual_seed(1)
    moe(z, Grid(2, 4, 3))
    moe(z, Grid(2, 4, 3))  # a loss is the sum over all calls
    mine = moe.take_loss()
    torch.manual_seed(1)
    noises = [torch.randn(len(h), n, dtype=torch.float64) for _ in range(2)]
    literal = 0.3 * sum(
        imbalance(h, moe.gate, moe.noise, k, noise, 0.01, renormalize) for noise in noises
    )
    # The balance is in single precision: mixed precision would leave little of a probability.
    torch.testing.assert_close(mine.double(), literal, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients(mine, leaves), gradients(literal, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert moe.take_loss() == 0


def test_balance_loss_of_one_expert_or_of_an_evaluation_is_zero():
    z, grid = torch.randn(3, 9, 4), Grid(0, 3, 3)
    alone = ConvMoE(4, num_experts=1, top_k=1, balance=1.0)
    alone(z, grid)
    assert alone.take_loss() == 0
    evaluated = ConvMoE(4, balance=1.0).eval()
    evaluated(z, grid)
    assert evaluated.take_loss() == 0


def test_balance_loss_trains_the_gate_with_one_expert_chosen():
    """Where equations 10 to 12 give it no gradient, see below."""
    moe = ConvMoE(4, num_experts=4, top_k=1, gate_init='zero', noise_floor=0.01, balance=0.01)
    moe(torch.randn(8, 9, 4), Grid(0, 3, 3))
    moe.take_loss().backward()
    assert moe.gate.grad.abs().max() > 0
    assert moe.noise.grad.abs().max() > 0


def test_a_copy_takes_no_losses_of_a_pass_along():
    moe = ConvMoE(4, balance=0.01)
    moe(torch.randn(3, 9, 4), Grid(0, 3, 3))
    assert copy.deepcopy(moe).take_loss() == 0
    assert pickle.loads(pickle.dumps(moe)).take_loss() == 0
    assert moe.take_loss() > 0


def test_a_gate_from_zero_leaves_the_choice_to_noise():
    moe = ConvMoE(4, num_experts=4, top_k=1, gate_init='zero')
    assert moe.gate.abs().max() == moe.noise.abs().max() == 0
    chosen = moe.route(torch.randn(4000, 4)).mean(0)
    torch.testing.assert_close(chosen, torch.full((4,), 0.25), rtol=0, atol=0.04)


def test_softmax_before_the_choice_gives_one_chosen_expert_a_gradient():
    moe = ConvMoE(4, num_experts=4, top_k=1, renormalize=False)
    moe(torch.randn(2, 9, 4), Grid(0, 3, 3)).square().sum().backward()
    assert moe.gate.grad.abs().max() > 0


def test_gate_chooses_k_experts_and_sums_to_one():
    moe = ConvMoE(8, num_experts=5, top_k=3).eval()
    weights = moe.route(torch.randn(6, 8))
    assert ((weights > 0).sum(1) == 3).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(6))


def test_gate_is_noisy_in_training_only():
    moe = ConvMoE(8, num_experts=4, top_k=2)
    h = torch.randn(1, 8)
    assert torch.equal(moe.eval().route(h), moe.eval().route(h))
    assert not torch.equal(moe.train().route(h), moe.train().route(h))
    literal = gate(h[0], moe.gate, moe.noise, 2, None)
    torch.testing.assert_close(moe.eval().route(h)[0], literal)


def test_gate_with_one_expert_chosen_gets_no_gradient():
    """Equations 10 to 12 at k = 1: a softmax over one number is constant."""
    moe = ConvMoE(4, num_experts=4, top_k=1)
    moe(torch.randn(2, 9, 4), Grid(0, 3, 3)).sum().backward()
    assert moe.gate.grad.abs().max() == 0
    assert moe.kernels.grad.abs().max() > 0


@pytest.mark.parametrize('scale', [1, 2, 3, 4, 7])
def test_identity_experts_are_the_identity(scale):
    """At the border as well, where a kernel with outer taps would meet the padding."""
    moe = ConvMoE(3, num_experts=2, scales=(scale, 1), expert_init='identity')
    image = torch.randn(3, 5, 4)
    torch.testing.assert_close(expert(image, moe.kernels[0], scale), image)


@pytest.mark.parametrize('decides', ['image', 'token'])
def test_a_mixture_of_identities_is_the_identity(decides):
    moe = ConvMoE(4, gate=decides, expert_init='identity')
    z = torch.randn(3, 2 + 12, 4)
    torch.testing.assert_close(moe(z, Grid(2, 3, 4)), z)


@pytest.mark.parametrize('decides', ['image', 'token'])
def test_images_are_mixed_independently(decides):
    moe = ConvMoE(4, top_k=2, gate=decides).eval()
    z = torch.randn(3, 17, 4)
    together = moe(z, Grid(1, 4, 4))
    alone = torch.cat([moe(image[None], Grid(1, 4, 4)) for image in z])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('decides', ['image', 'token'])
def test_no_images_are_mixed_to_none(decides, training):
    moe = ConvMoE(3, gate=decides, balance=1.0, expert_bias=True).train(training)
    for grid in GRIDS:
        z = torch.randn(0, grid.tokens, 3, requires_grad=True)
        mixed = moe(z, grid)
        assert mixed.shape == z.shape
        (mixed.sum() + moe.take_loss()).backward()
        assert z.grad.shape == z.shape
    assert all(not p.grad.any() for p in moe.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_experts=0), 'num_experts=0'),
        (dict(num_experts=4, top_k=5), 'top_k=5 is out of range: choose 1 to 4'),
        (dict(num_experts=4, top_k=0), 'top_k=0'),
        (dict(num_experts=4, scales=(1, 2)), r'scales=\(1, 2\)'),
        (dict(num_experts=2, scales=(1, 0)), 'whole numbers of at least 1'),
        (dict(gate='pixel'), "gate='pixel': choose 'image' or 'token'"),
        (dict(expert_init='zero'), "expert_init='zero': choose 'kaiming' or 'identity'"),
        (dict(gate_init='kaiming'), "gate_init='kaiming': choose 'uniform' or 'zero'"),
        (dict(noise_floor=-0.1), 'noise_floor=-0.1: choose a number of at least 0'),
        (dict(balance=-1), 'balance=-1: choose a number of at least 0'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ConvMoE(4, **options)


def test_wrong_grid_is_named():
    with pytest.raises(ValueError, match='10 tokens where the grid has 2 x 4 and 1 others'):
        ConvMoE(4)(torch.randn(1, 10, 4), Grid(1, 2, 4))
