"""RepAdapter: linear adapters in front of the sublayers, which fold into their weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class GroupedBottleneck(nn.Module):
    """A dense 1x1 convolution d -> r and a grouped one r -> d with biases; the second is zero.

    Args:
        width: Token width d.
        rank: Inner width r.
        groups: Number of groups of the second convolution.
    """

    def __init__(self, width: int, rank: int, groups: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Parameter(torch.zeros(groups, width // groups, rank // groups))
        self.up_bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def up_weight(self) -> Tensor:
        """The second convolution as a matrix (d, r) with a block a group on its diagonal."""
        return torch.block_diag(*self.up)


@MODELS.register_module()
class RepAdapter(PETLMethod):
    r"""Re-parameterisable adapter (Luo et al., 2023).

    .. math::
        x' = x + s \, (U (D x + b_D) + b_U)

    in front of the attention and of the FFN, which read x' in the place of x. U is a grouped
    convolution and nothing stands between D and U but dropout, so that all of it folds into qkv and
    fc1. U starts at zero. With 2 groups a site has :math:`d r + r + d r / 2 + d` parameters.

    The official code adapts the output of the norms. That is the input of qkv and fc1, but for the
    zeros that pad Swin's windows: here they pass through the adapter too, as they do once it is
    folded into qkv.

    Args:
        rank: Inner width r.
        groups: Number of groups of U.
        scale: Factor s, searched by the official code in 0.1, 0.5, 1, 5, 10 for each task.
        drop_rate: Dropout between D and U.
        sites: Roles to adapt. ``('qkv',)`` is the paper's adapter of the attention alone.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``groups`` does not divide ``rank``.
    """

    def __init__(
        self,
        rank: Positive = 8,
        groups: Positive = 2,
        scale: float = 1.0,
        drop_rate: Probability = 0.1,
        sites: Sequence[str] = ('qkv', 'fc1'),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.rank = rank
        self.groups = groups
        if rank % groups:
            raise ValueError(f'groups={groups} does not divide rank={rank}')
        self.scale = scale
        self.drop_rate = drop_rate

    def build(self, sites: list[Site]) -> None:
        """Creates one adapter a site."""
        for site in sites:
            width = site.in_features
            if width % self.groups:
                raise ValueError(
                    f'groups={self.groups} does not divide the {width} inputs of {site.name!r}'
                )
            self.local[site.key] = GroupedBottleneck(width, self.rank, self.groups)

    def before(self, site: Site, x: Tensor) -> Tensor:
        """Adapts what the site reads."""
        own = self.local[site.key]
        z = F.dropout(own.down(x), self.drop_rate, self.training)
        return torch.add(x, F.linear(z, own.up_weight(), own.up_bias), alpha=self.scale)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Multiplies the adapter into the weight: W' = W + s W U D, b' = b + s W (U b_D + b_U)."""
        own = self.local[site.key]
        up = own.up_weight()
        shift = weight @ (up @ own.down.bias + own.up_bias) * self.scale
        weight = torch.addmm(weight, weight @ up, own.down.weight, alpha=self.scale)
        return weight, shift if bias is None else bias + shift
