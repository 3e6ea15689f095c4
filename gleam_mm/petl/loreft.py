"""LoReFT: an edit of what every block gives, within a small subspace."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.exporting import exporting
from gleam_mm.registry import MODELS


class SubspaceEdit(nn.Module):
    """R as the orthonormal basis of ``basis`` (d, r), and the Linear ``target`` (d -> r).

    Args:
        width: Token width d.
        rank: Inner width r.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.empty(width, rank))
        self.target = nn.Linear(width, rank)
        nn.init.orthogonal_(self.basis)
        nn.init.zeros_(self.target.bias)
        with torch.no_grad():
            self.target.weight.copy_(self.subspace())

    def subspace(self) -> Tensor:
        """The matrix R (r, d), whose rows are orthonormal and span the basis."""
        if exporting():  # ONNX has no QR decomposition
            return _gram_schmidt(self.basis.T)
        precise = torch.promote_types(self.basis.dtype, torch.float32)  # none is of 16 bits
        q, r = torch.linalg.qr(self.basis.to(precise))
        return (q * r.diagonal().sign()).T.to(self.basis.dtype)


def _gram_schmidt(rows: Tensor) -> Tensor:
    """Orthonormal rows, each of which spans with those before what they span in ``rows``."""
    done: list[Tensor] = []
    for row in rows.unbind():
        for other in done:
            row = row - (row @ other) * other
        done.append(row / row.norm())
    return torch.stack(done)


@MODELS.register_module()
class LoReFT(PETLMethod):
    r"""Low-rank linear subspace representation finetuning (Wu et al., NeurIPS 2024).

    .. math::
        h' = h + R^T (W h + b - R h)

    behind every block, for all of its tokens, with orthonormal rows in R: within a subspace of r
    dimensions h becomes W h + b, outside of it nothing changes. W = R and b = 0 at first, so that
    the model starts as the pretrained one; the official code starts W at random. A block has
    :math:`2 d r + r` parameters.

    Args:
        rank: Inner width r.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``rank`` exceeds the token width.
    """

    obstacle = (
        'it edits the residual stream behind a block, where no weight of a Linear has the last word'
    )

    def __init__(self, rank: Positive = 4, blocks: Sequence[int] | None = None) -> None:
        super().__init__(('block',), blocks)
        self.rank = rank

    def build(self, sites: list[Site]) -> None:
        """Creates one subspace a block."""
        for site in sites:
            if self.rank > site.width:
                raise ValueError(
                    f'rank={self.rank} exceeds the token width {site.width} at {site.name!r}'
                )
            self.local[site.key] = SubspaceEdit(site.width, self.rank)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Edits the block's output."""
        own = self.local[site.key]
        subspace = own.subspace()
        edit = F.linear(y, own.target.weight - subspace, own.target.bias)
        return y + F.linear(edit, subspace.T)
