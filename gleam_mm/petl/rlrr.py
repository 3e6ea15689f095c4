"""RLRR: rows and columns of the weights, rescaled around what they were."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.ssf import SSF
from gleam_mm.registry import MODELS


class RowsAndColumns(nn.Module):
    """The factors of a weight's ``rows`` (m,) and ``columns`` (p, n), and the ``shift`` (m,).

    Args:
        out_features: Number m of rows.
        in_features: Number n of columns.
        parts: Number p of parts of the rows, each with factors of its own for the columns.
    """

    def __init__(self, out_features: int, in_features: int, parts: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(out_features))
        self.columns = nn.Parameter(torch.empty(parts, in_features))
        self.shift = nn.Parameter(torch.zeros(out_features))
        bound = math.sqrt(6 / in_features)
        nn.init.uniform_(self.columns, -bound, bound)


@MODELS.register_module()
class RLRR(PETLMethod):
    r"""Low-rank rescaling with a residual (Dong et al., CVPR 2024).

    .. math::
        W' = W + W \odot (r c^T), \qquad b' = b + s

    at every Linear, where queries, keys and values have a c each, and :math:`\gamma \odot y +
    \beta` behind the two norms of a block. All of it folds. r and s start at zero, so that the
    model starts as the pretrained one; the official code starts r at random and does not. It also
    scales and shifts what the final norm gives. A block of a ViT has 31 d parameters.

    Args:
        sites: Roles of the Linears to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    def __init__(
        self, sites: Sequence[str] = LINEAR_ROLES, blocks: Sequence[int] | None = None
    ) -> None:
        super().__init__(sites, blocks)

    def build(self, sites: list[Site]) -> None:
        """Creates the factors of every Linear, and scales and shifts behind the blocks' norms."""
        for site in sites:
            rows, columns = site.out_features, site.in_features
            parts = max(1, len(site.parts))
            self.local[site.key] = RowsAndColumns(rows, columns, parts)
        self.local['norms'] = SSF(0.0, ('norm',), sorted({site.index for site in sites}))

    def compute(self, site: Site, x: Tensor) -> Tensor:
        """Multiplies by the rescaled weight."""
        return F.linear(x, *self.fold(site, site.weight, site.bias))

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rescales the weight, and shifts the bias."""
        own = self.local[site.key]
        parts = len(own.columns)
        factors = own.rows.view(parts, -1, 1) * own.columns[:, None]
        weight = weight + weight * factors.flatten(0, 1)
        return weight, own.shift if bias is None else bias + own.shift
