"""AdapterBias: one direction for all tokens, whose length each token sets."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class TokenShift(nn.Module):
    """The direction ``shift`` (m,) of a site and the Linear ``length`` (m -> 1) of its tokens.

    Args:
        width: Width m that the site writes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))
        self.length = nn.Linear(width, 1)
        nn.init.zeros_(self.length.bias)


@MODELS.register_module()
class AdapterBias(PETLMethod):
    r"""AdapterBias (Fu et al., NAACL 2022 Findings).

    .. math::
        h = y + (a^T y + c) \, v

    behind the FFN: a bias v that each token scales for itself. v and c start at zero. It is linear
    in y = W x + b, so that it folds: :math:`W' = (I + v a^T) W` and :math:`b' = b + (a^T b + c) v`.
    A site has 2 d + 1 parameters.

    Args:
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    def __init__(
        self, sites: Sequence[str] = ('fc2',), blocks: Sequence[int] | None = None
    ) -> None:
        super().__init__(sites, blocks)

    def build(self, sites: list[Site]) -> None:
        """Creates one direction and one Linear a site."""
        for site in sites:
            self.local[site.key] = TokenShift(site.out_features)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Shifts every token along the site's direction."""
        own = self.local[site.key]
        return y + own.length(y) * own.shift

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Folds the shift into the weight and the bias."""
        own = self.local[site.key]
        constant = own.length.bias if bias is None else own.length(bias)
        shift = constant * own.shift
        weight = torch.addmm(weight, own.shift[:, None], F.linear(own.length.weight, weight.T))
        return weight, shift if bias is None else bias + shift
