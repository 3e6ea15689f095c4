"""The folded mixture of experts against the literal equations 8 to 12."""

import itertools

import pytest
import torch
from literal import expert, gate, mixture

from gleam_mm.petl import ConvMoE, Grid

CHOICES = [(n, k) for n in range(1, 6) for k in range(1, n + 1)]
SCALES = {
    'default': lambda n: None,
    'reversed': lambda n: tuple(range(n, 0, -1)),
    'equal': lambda n: (2,) * n,
    'sparse': lambda n: (1, 3, 4, 7, 8)[:n],
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
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ConvMoE(4, **options)


def test_wrong_grid_is_named():
    with pytest.raises(ValueError, match='10 tokens where the grid has 1 prefix tokens and 2 x 4'):
        ConvMoE(4)(torch.randn(1, 10, 4), Grid(1, 2, 4))
