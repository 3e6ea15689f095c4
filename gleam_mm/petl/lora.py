"""LoRA: low-rank adaptation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.lowrank import add_update
from gleam_mm.registry import MODELS


class LowRankPair(nn.Module):
    """The matrices of one site: A as ``down`` (r, n) and B as ``up`` (m, r), which starts at zero.

    Args:
        in_features: Width n that the site reads.
        out_features: Width m that the site writes.
        rank: Inner width r.
    """

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))


@MODELS.register_module()
class LoRA(PETLMethod):
    r"""Low-rank adaptation (Hu et al., ICLR 2022; GLEAM, equation 6).

    .. math::
        h = W_0 x + \tfrac{\alpha}{r} B_s A_s x

    with both matrices local to the site. A fused qkv Linear has one A and a B of 3 d rows, as in
    MMPretrain's and HF PEFT's LoRA.

    Args:
        rank: Inner width r.
        alpha: The update is scaled by ``alpha / rank``.
        drop_rate: Dropout of the input of A.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    def __init__(
        self,
        rank: Positive = 8,
        alpha: float = 8.0,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = ('qkv',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.rank = rank
        self.scale = alpha / rank
        self.drop_rate = drop_rate

    def build(self, sites: list[Site]) -> None:
        """Creates one pair of matrices a site."""
        for site in sites:
            linear = site.module
            if not isinstance(linear, nn.Linear):
                raise ValueError(
                    f'LoRA adapts Linears; {site.name!r} (role {site.role!r}) is a '
                    f'{type(linear).__name__}. Choose `sites` among qkv, proj, fc1, fc2'
                )
            self.local[site.key] = LowRankPair(linear.in_features, linear.out_features, self.rank)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the low-rank update to the frozen Linear's output."""
        pair = self.local[site.key]
        z = F.linear(F.dropout(x, self.drop_rate, self.training), pair.down)
        return add_update(y, z, pair.up, self.scale)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the low-rank update to the site's weight."""
        pair = self.local[site.key]
        return torch.addmm(weight, pair.up, pair.down, alpha=self.scale), bias
