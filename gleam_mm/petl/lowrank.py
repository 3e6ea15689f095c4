"""How a low-rank update starts, reads what a frozen Linear reads, and is added to what it gives."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn import functional as F

from gleam_mm.petl.recomputing import recomputed_elsewhere
from gleam_mm.petl.sharing import lowered, stacked

ACCUMULATING = ('cpu',)
"""Types of devices on which :func:`project` spares autograd a sum at every step. A short step on a
GPU waits for Python, which this has to call for each site; a CUDA graph of one does not."""


def project(y: Tensor, x: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Projects what a Linear has read: ``z = A x``.

    The gradient of x is a sum, what the Linear gives and what the projection gives. Autograd makes
    a tensor of each, as wide as x, and adds them in a third pass. Here the second product is
    accumulated into the first, where y tells that it is the plain product of x and a frozen weight
    and the device is one of :data:`ACCUMULATING`, or is recorded.

    Args:
        y: Output of a Linear for x, of shape (..., m).
        x: What it has read, of shape (..., n).
        down: The weight A, of shape (r, n).

    Returns:
        y, to go on with in its place, and z of shape (..., r).
    """
    weight = _frozen_weight(y, x)
    if weight is None:
        return y, F.linear(x, down)
    product = y if y._base is None else y._base
    product, z = _Beside.apply(x, product.detach(), weight, lowered(down))
    return product.view_as(y), z


class _Beside(torch.autograd.Function):
    """The product ``y = x W`` that there is already, and beside it ``z = A x``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weight: Tensor, down: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight, down)
        ctx.mark_dirty(y)  # it stays as it is, but autograd must take it for a result of this
        return y, F.linear(x, down)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor, of_z: Tensor) -> tuple[Tensor, None, None, Tensor | None]:
        x, weight, down = ctx.saved_tensors
        of_y, of_z = of_y.flatten(0, -2), of_z.flatten(0, -2)
        of_x = (of_y @ weight.T).addmm_(of_z, down)
        of_down = of_z.T @ x.flatten(0, -2) if ctx.needs_input_grad[3] else None
        return of_x.view_as(x), None, None, of_down


def _frozen_weight(y: Tensor, x: Tensor) -> Tensor | None:
    """The weight W (n, m) where to autograd y is ``x W + b``, and W and b are constants."""
    # Before anything asks CUDA, which a compiler could not follow.
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_functorch_wrapped_tensor(x):
        return None
    if not x.requires_grad or not (x.device.type in ACCUMULATING or _is_recorded(x)):
        return None
    if recomputed_elsewhere() or unpack_dual(x).tangent is not None:  # forward mode
        return None
    if y._backward_hooks or y.retains_grad:  # which another tensor would not have
        return None
    product, _ = _behind_view(y.grad_fn, y.output_nr)
    if product is None or product.name() not in ('AddmmBackward0', 'MmBackward0'):
        return None
    *bias, read, (weight, _) = product.next_functions
    if weight is not None or any(node is not None for node, _ in bias):
        return None
    own = x.grad_fn, x.output_nr
    return product._saved_mat2 if own in (read, _behind_view(*read)) else None


def _is_recorded(x: Tensor) -> bool:
    """Whether what is computed of x becomes a part of a CUDA graph."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _behind_view(node: Any, output: int) -> tuple[Any, int]:
    """What autograd has a view of, where tokens were taken for a matrix; or what is given."""
    if node is not None and node.name() in ('ViewBackward0', 'UnsafeViewBackward0'):
        return node.next_functions[0]
    return node, output


def add_update(y: Tensor, z: Tensor, up: Tensor, scale: float) -> Tensor:
    """Returns ``y + scale * U z``, in the memory of y where that is possible.

    The output of a Linear is as wide as a tensor gets in a transformer, nothing needs it before the
    update, and autograd does not keep it. A tensor and a pass over it are saved by accumulating the
    product into y. A new tensor is made where autograd would have to record the change of a *view*,
    which costs more than it saves, and where a compiler fuses the sum anyway.

    Args:
        y: Output of a Linear, of shape (..., m), or of several blocks of m numbers each.
        z: Narrow features, of shape (..., r), or as many blocks of r.
        up: The weight U, of shape (m, r), which acts on each block.
        scale: Factor of the update.

    Returns:
        A tensor like y, which is not to be used any more.
    """
    # In-place operations are outside of autocast's rules.
    width, rank = up.shape
    z, up = z.reshape(-1, rank).to(y.dtype), up.to(y.dtype)
    up = (by_columns(up) if torch.is_grad_enabled() else up).T
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return torch.addmm(y.reshape(-1, width), z, up, alpha=scale).view_as(y)
    # For a Linear, PyTorch multiplies matrices and returns a view of the product.
    target = y._base if torch.is_grad_enabled() else y.reshape(-1, width)
    if target is None or target.shape != (z.shape[0], width):
        return torch.addmm(y.reshape(-1, width), z, up, alpha=scale).view_as(y)
    return target.addmm_(z, up, alpha=scale).view_as(y)


def by_columns(weight: Tensor) -> Tensor:
    """The same weight (m, r) with its columns one after the other in memory, if it widens.

    The two products of a Linear's backward pass then are of long rows; of rows of four numbers they
    take up to eight times as long on a CPU. Of several weights (sites, m, r) each is laid out so.
    """
    rows, columns = weight.shape[-2:]
    return weight.mT.contiguous().mT if rows > columns else weight


def together(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The matrices A (r, n) and B (m, r) of many sites of one shape, ready to multiply with.

    Autocast would lower each of them by itself, :func:`add_update` lay out each B, and their
    gradients would take the same way back: six small operations a site, which cost more than their
    arithmetic.
    """
    downs, ups = (lowered(stacked(matrices)) for matrices in zip(*pairs, strict=True))
    return list(zip(downs.unbind(), by_columns(ups).unbind(), strict=True))


def from_singular_values(
    weight: Tensor, rank: int, scale: float, largest: bool
) -> tuple[Tensor, Tensor]:
    """A0 (r, n) and B0 (m, r), whose scaled product is a part of a weight's singular values."""
    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    part = slice(rank) if largest else slice(len(values) - rank, None)
    root = (values[part] / scale).sqrt()
    return root[:, None] * right[part], left[:, part] * root


def from_qr(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A0 (r, n), the first rows of R, and B0 (m, r), the first columns of Q."""
    q, r = torch.linalg.qr(weight.float())
    return r[:rank], q[:, :rank]


FROM_SINGULAR_VALUES: dict[str, Callable[[Tensor, int, float], tuple[Tensor, Tensor]]] = {
    'pissa': partial(from_singular_values, largest=True),
    'milora': partial(from_singular_values, largest=False),
}
"""Starts that share a part of the weight out to both matrices, and so divide by the scale."""

STARTS = {**FROM_SINGULAR_VALUES, 'olora': from_qr}
"""Where the matrices of a low-rank update start that come from the weight."""
