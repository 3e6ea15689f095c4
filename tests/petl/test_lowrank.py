"""Adding an update in place gives what adding it out of place gives, gradients included."""

import pytest
import torch
from torch.nn import functional as F

from gleam_mm.petl.lowrank import add_update, together


def tensors(bias, x_needs_grad):
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=x_needs_grad)
    weight = torch.randn(8, 6, dtype=torch.float64)
    z = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    up = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    return x, weight, torch.randn(8, dtype=torch.float64) if bias else None, z, up


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('x_needs_grad', [True, False])
def test_equals_the_sum(bias, x_needs_grad):
    x, weight, bias, z, up = tensors(bias, x_needs_grad)
    leaves = [leaf for leaf in (x, z, up) if leaf.requires_grad]
    expected = F.linear(x, weight, bias) + 0.5 * (z @ up.T)
    updated = add_update(F.linear(x, weight, bias), z, up, 0.5)
    torch.testing.assert_close(updated, expected)
    mine = torch.autograd.grad(updated.sin().sum(), leaves)
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(add_update(F.linear(x, weight, bias), z, up, 0.5), expected)


def test_a_linear_with_bias_is_updated_in_place():
    x, weight, bias, z, up = tensors(bias=True, x_needs_grad=True)
    y = F.linear(x, weight, bias)
    assert add_update(y, z, up, 1.0).data_ptr() == y.data_ptr()


def test_second_derivatives_are_right():
    x, weight, bias, z, up = tensors(bias=True, x_needs_grad=True)

    def function(x, z, up):
        return add_update(F.linear(x, weight, bias), z, up, 0.5).tanh()

    assert torch.autograd.gradcheck(function, (x, z, up))
    assert torch.autograd.gradgradcheck(function, (x, z, up))


def test_precision_of_y_wins():
    y = torch.zeros(2, 4, dtype=torch.bfloat16)
    assert add_update(y, torch.ones(2, 3), torch.ones(4, 3), 1.0).dtype == torch.bfloat16


@pytest.mark.parametrize('lower', [False, True])
def test_together_is_each_by_itself(lower):
    """The same matrices and gradients, B by columns, and gradients that lie as their matrices."""
    torch.manual_seed(0)
    pairs = [(torch.randn(3, 5), torch.randn(8, 3)) for _ in range(4)]
    for matrix in (matrix for pair in pairs for matrix in pair):
        matrix.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=lower):
        ready = together(pairs)
    for (down, up), (ready_down, ready_up) in zip(pairs, ready, strict=True):
        dtype = torch.bfloat16 if lower else torch.float32
        assert torch.equal(ready_down, down.to(dtype))
        assert torch.equal(ready_up, up.to(dtype))
        assert ready_up.T.is_contiguous()
    for i, (down, up) in enumerate(ready):
        loss = i * (down.float().sum() + up.float().square().sum())
        loss.backward(retain_graph=True)
    for i, (down, up) in enumerate(pairs):
        torch.testing.assert_close(down.grad, torch.full_like(down, i))
        torch.testing.assert_close(up.grad, 2 * i * up.to(dtype).float(), atol=0.02, rtol=0.01)
        assert up.grad.is_contiguous()
