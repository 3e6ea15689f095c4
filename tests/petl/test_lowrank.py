"""Low-rank updates in place, and projections, give what plain sums give, gradients included."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gleam_mm.petl import lowrank
from gleam_mm.petl.lowrank import add_update, project, together


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


class Sums(TorchDispatchMode):
    """Counts the tensors that are added to each other."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
        return function(*args, **(kwargs or {}))


def apart(y, x, down):
    """What :func:`project` says it does, in words of autograd."""
    return y, F.linear(x, down)


def matrices(trained=''):
    leaf = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 6, dtype=torch.float64, requires_grad='weight' in trained)
    bias = torch.randn(8, dtype=torch.float64, requires_grad='bias' in trained)
    down = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    return leaf, weight, bias, down


def loss(both, tensors, read=lambda leaf: leaf * 1, change=lambda y, x: y):
    leaf, weight, bias, down = tensors
    x = read(leaf)
    y, z = both(change(F.linear(x, weight, bias), x), x, down)
    return y.sin().sum() + z.cos().sum()


def check(tensors, **options):
    losses = [loss(both, tensors, **options) for both in (project, apart)]
    torch.testing.assert_close(*losses)
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    torch.testing.assert_close(*(torch.autograd.grad(one, wanted) for one in losses))


READ = {
    'tokens': lambda leaf: leaf * 1,
    'a matrix': lambda leaf: (leaf * 1).flatten(0, 1),
    'images': lambda leaf: (leaf * 1).unflatten(0, (2, 1)),
    'a part': lambda leaf: torch.cat((leaf, leaf), 1).chunk(2, 1)[1],
    'what is no plain memory': lambda leaf: (leaf.mT * 1).mT,
    'a leaf': lambda leaf: leaf,
}


@pytest.mark.parametrize('biased', [True, False])
@pytest.mark.parametrize('read', READ)
def test_projecting_gives_the_gradients_of_two_linears(read, biased):
    leaf, weight, bias, down = matrices()
    check((leaf, weight, bias if biased else None, down), read=READ[read])


@pytest.mark.parametrize('biased', [True, False])
@pytest.mark.parametrize('read', ['tokens', 'a matrix', 'images'])
def test_projecting_adds_no_gradients_up(read, biased):
    leaf, weight, bias, down = matrices()
    tensors = leaf, weight, bias if biased else None, down
    counts = []
    for both in (project, apart):
        made = loss(both, tensors, read=READ[read])
        with Sums() as sums:
            torch.autograd.grad(made, (leaf, down))
        counts.append(sums.count)
    assert counts == [0, 1]


def test_projecting_under_autocast_gives_gradients_in_the_precision_of_what_they_are_of():
    leaf, weight, bias, down = (tensor.float().detach() for tensor in matrices())
    leaf.requires_grad_(), down.requires_grad_()
    gradients = []
    for both in (project, apart):
        with torch.autocast('cpu', torch.bfloat16):
            x = (leaf * 1).bfloat16()
            y, z = both(F.linear(x, weight, bias), x, down)
            assert y.dtype == z.dtype == torch.bfloat16
        loss = y.float().sin().sum() + z.float().cos().sum()
        gradients.append(torch.autograd.grad(loss, (leaf, down)))
    torch.testing.assert_close(*gradients, atol=0.02, rtol=0.02)


@pytest.mark.parametrize('tokens, rank', [(0, 3), (5, 0)])
def test_nothing_to_project_has_no_gradient_to_give(tokens, rank):
    leaf, weight, bias, down = matrices()
    leaf, down = (part.detach().requires_grad_() for part in (leaf[:, :tokens], down[:rank]))
    check((leaf, weight, bias, down))


@pytest.mark.parametrize('trained', ['weight', 'bias', 'weight and bias'])
def test_what_a_linear_trains_gets_its_gradient(trained):
    check(matrices(trained))


CHANGES = {
    'scaled': lambda y, x: y * 2,
    'in place': lambda y, x: y.add_(x.sum()),
    'of something else': lambda y, x: y + x[..., :1],
    'a part': lambda y, x: y[..., :4],
}


@pytest.mark.parametrize('change', CHANGES)
def test_an_output_that_was_changed_keeps_what_changed_it(change):
    check(matrices(), change=CHANGES[change])


def test_what_the_linear_did_not_read_gets_a_gradient_of_its_own():
    def of_another(both):
        return lambda y, x, down: both(y, x.flip(0).contiguous(), down)

    leaf, _, _, down = tensors = matrices()
    losses = [loss(of_another(both), tensors) for both in (project, apart)]
    torch.testing.assert_close(*(torch.autograd.grad(one, (leaf, down)) for one in losses))


def test_another_part_of_the_same_split_is_not_what_the_linear_read():
    leaf, weight, bias, down = matrices()
    gradients = []
    for both in (project, apart):
        x, other = (leaf * 1).chunk(2)
        y, z = both(F.linear(x, weight, bias), other, down)
        gradients.append(torch.autograd.grad(y.sin().sum() + z.cos().sum(), (leaf, down)))
    torch.testing.assert_close(*gradients)


def test_a_hook_on_the_output_still_sees_its_gradient():
    leaf, weight, bias, down = matrices()
    x, seen = leaf * 1, []
    y = F.linear(x, weight, bias)
    y.register_hook(seen.append)
    project(y, x, down)[0].sin().sum().backward()
    torch.testing.assert_close(seen, [F.linear(x, weight, bias).cos()])


def test_an_output_that_is_to_retain_its_gradient_has_it():
    leaf, weight, bias, down = matrices()
    x = leaf * 1
    y = F.linear(x, weight, bias)
    y.retain_grad()
    project(y, x, down)[0].sin().sum().backward()
    torch.testing.assert_close(y.grad, y.detach().cos())


def test_forward_mode_has_the_derivatives_of_the_two_products():
    weight, down, x = torch.randn(8, 6), torch.randn(3, 6), torch.randn(2, 5, 6, requires_grad=True)
    along = torch.randn_like(x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, along)
        found = [
            forward_ad.unpack_dual(part).tangent
            for part in project(F.linear(dual, weight), dual, down)
        ]
    torch.testing.assert_close(found, [along @ weight.T, along @ down.T])


def test_a_compiler_does_not_meet_what_asks_cuda(monkeypatch):
    """It breaks the graph of a model on a GPU, where the device alone does not decide."""
    monkeypatch.setattr(lowrank, 'ACCUMULATING', ())
    monkeypatch.setattr(lowrank, '_is_recorded', lambda x: torch.cuda.is_current_stream_capturing())
    weight, down = torch.randn(8, 6), torch.randn(3, 6, requires_grad=True)

    @torch.compile(backend='eager', fullgraph=True)
    def both(x):
        return project(F.linear(x, weight), x, down)

    x = torch.randn(2, 5, 6, requires_grad=True)
    torch.testing.assert_close(both(x)[1], x @ down.T)


def test_second_derivatives_of_projecting_are_right():
    leaf, weight, bias, down = matrices()

    def function(leaf, down):
        x = leaf.tanh()
        y, z = project(F.linear(x, weight, bias), x, down)
        return y.tanh(), z.tanh()

    assert torch.autograd.gradcheck(function, (leaf, down))
    assert torch.autograd.gradgradcheck(function, (leaf, down))
