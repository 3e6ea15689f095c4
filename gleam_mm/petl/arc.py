"""ARC: adapters of one projection that all blocks share, and a few numbers of their own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class Rescaling(nn.Module):
    """The coefficients ``scale`` (r,) and the ``shift`` (d,) of one site, both zero at first.

    Args:
        width: Token width d.
        rank: Inner width r.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(rank))
        self.shift = nn.Parameter(torch.zeros(width))


@MODELS.register_module()
class ARC(PETLMethod):
    r"""Adaptation by re-composing (Dong, Yan, Lin and Wang, NeurIPS 2023).

    .. math::
        x' = x + D \, \mathrm{diag}(s) \, D^T x + b

    in front of the attention and of the FFN, with one D (d x r) for all attentions and one for all
    FFNs (in Swin, for those of a stage). Nothing nonlinear stands inside, so that it folds into qkv
    and fc1. s and b are local and start at zero, as in the official code's attention; that code
    starts s at random in front of the FFN, where the model would not be the pretrained one. A ViT
    of L blocks has :math:`2 d r + 2 L (r + d)` parameters.

    Args:
        rank: Inner width r.
        drop_rate: Dropout of what D reads.
        sites: Roles to adapt; each has a D of its own.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    def __init__(
        self,
        rank: Positive = 50,
        drop_rate: Probability = 0.1,
        sites: Sequence[str] = ('qkv', 'fc1'),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.rank = rank
        self.drop_rate = drop_rate

    def build(self, sites: list[Site]) -> None:
        """Creates one projection a role and stage, and one rescaling a site."""
        self.shared.update({role: nn.ParameterDict() for role in self.roles})
        for site in sites:
            width, projections = site.in_features, self.shared[site.role]
            if str(site.stage) not in projections:
                projections[str(site.stage)] = nn.Parameter(torch.empty(width, self.rank))
                nn.init.xavier_uniform_(projections[str(site.stage)])
            self.local[site.key] = Rescaling(width, self.rank)

    def projection(self, site: Site) -> Tensor:
        """The matrix D (d, r) that a site shares with others."""
        return self.shared[site.role][str(site.stage)]

    def before(self, site: Site, x: Tensor) -> Tensor:
        """Adapts what the site reads."""
        own, projection = self.local[site.key], self.projection(site)
        z = F.dropout(x @ projection * own.scale, self.drop_rate, self.training)
        return x + F.linear(z, projection, own.shift)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Multiplies the adapter into the weight: W' = W + W D diag(s) D^T, b' = b + W b."""
        own, projection = self.local[site.key], self.projection(site)
        shift = weight @ own.shift
        weight = torch.addmm(weight, weight @ projection * own.scale, projection.T)
        return weight, shift if bias is None else bias + shift
