"""ETHER+: reflections of what a Linear reads and writes, relaxed so that they can be none."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class Reflection(nn.Module):
    """The vectors ``u`` and ``v`` (n,) of H = I - u u^T + v v^T; with v = -u at first, H = I.

    Args:
        width: Number n of channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(width))
        self.v = nn.Parameter(-self.u.detach())

    def forward(self, rows: Tensor) -> Tensor:
        """Multiplies rows (..., n) by H, with both vectors at length 1."""
        u, v = F.normalize(self.u, dim=0), F.normalize(self.v, dim=0)
        return rows - (rows @ u)[..., None] * u + (rows @ v)[..., None] * v


@MODELS.register_module()
class ETHERPlus(PETLMethod):
    r"""ETHER+ (Bini et al., ICML 2024).

    .. math::
        W' = H_l W H_r, \qquad H = I - \hat u \hat u^T + \hat v \hat v^T

    with unit vectors :math:`\hat u = u / |u|`, so that no step, however large, moves a weight
    further than a bounded distance: the learning rate hardly matters. The bias stays. The paper
    also cuts H into blocks, for speed. A site has 2 n + 2 m parameters.

    Args:
        two_sided: Whether there is an :math:`H_l`; without it, a site has 2 n parameters.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    def __init__(
        self,
        two_sided: bool = True,
        sites: Sequence[str] = LINEAR_ROLES,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.two_sided = two_sided

    def build(self, sites: list[Site]) -> None:
        """Creates one or two reflections a site."""
        for site in sites:
            own = nn.ModuleDict({'right': Reflection(site.in_features)})
            if self.two_sided:
                own['left'] = Reflection(site.out_features)
            self.local[site.key] = own

    def compute(self, site: Site, x: Tensor) -> Tensor:
        """Multiplies by the reflected weight."""
        return F.linear(x, *self.fold(site, site.weight, site.bias))

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Reflects the rows of the weight and, with two sides, its columns."""
        own = self.local[site.key]
        weight = own['right'](weight)
        if self.two_sided:
            weight = own['left'](weight.T).T
        return weight.contiguous(), bias
