"""benchmarks/minivtab/unfolded.py: what it computes without its options is ConvMoE's own."""

import pytest
import torch
from unfolded import UnfoldedMoE

from gleam_mm.layouts import Grid
from gleam_mm.petl.moe import ConvMoE


@pytest.fixture
def pair():
    torch.manual_seed(0)
    folded = ConvMoE(6, num_experts=3, top_k=2).double().eval()
    return folded, torch.randn(2, 1 + 12, 6, dtype=torch.float64), Grid(1, 3, 4)


def _unfolded(folded, **options):
    other = UnfoldedMoE(6, num_experts=3, top_k=2, **options).double().eval()
    other.load_state_dict(folded.state_dict())
    return other


def test_plain_is_the_folded_mixture(pair):
    folded, z, grid = pair
    torch.testing.assert_close(_unfolded(folded)(z, grid), folded(z, grid), rtol=0, atol=1e-12)


def test_gelu_stands_between_convolution_and_pooling(pair):
    folded, z, grid = pair
    with torch.no_grad():
        # A GELU leaves what is far above zero as it is, and makes zero of what is far below.
        z = z.abs() + 100
        folded.kernels.fill_(1.0)
        expected = folded(z, grid)
    torch.testing.assert_close(_unfolded(folded, gelu=True)(z, grid), expected)
    folded.kernels.data.neg_()
    assert not _unfolded(folded, gelu=True)(z, grid).any()


def test_bicubic_keeps_what_is_constant_inside(pair):
    folded, _, _ = pair
    folded.kernels.data.zero_()
    folded.kernels.data[:, range(6), range(6), 1, 1] = 1.0  # each expert is the identity
    z = torch.randn(1, 1, 6, dtype=torch.float64).expand(2, 13, 6)
    grid = Grid(1, 3, 4)
    torch.testing.assert_close(_unfolded(folded, bicubic=True)(z, grid), z)
