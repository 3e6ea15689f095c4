"""How a low-rank update starts, and how it is added to the output of a frozen Linear."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from gleam_mm.petl.sharing import lowered, stacked


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


STARTS: dict[str, Callable[[Tensor, int, float], tuple[Tensor, Tensor]]] = {
    'pissa': partial(from_singular_values, largest=True),
    'milora': partial(from_singular_values, largest=False),
    'olora': from_qr,
}
"""Where the matrices of a low-rank update start that come from the weight."""
