"""Consolidator: a sparse Linear of many groups beside every Linear."""

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks.drop import drop_path
from torch import Tensor, nn

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class GroupedLinear(nn.Module):
    """A Linear in g groups: ``weight`` (g, m / g, n / g) and ``bias`` (m,), which start at zero.

    Args:
        in_features: Width n that it reads.
        out_features: Width m that it writes.
        groups: Number g of groups.
    """

    def __init__(self, in_features: int, out_features: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.zeros(groups, out_features // groups, in_features // groups)
        )
        self.bias = nn.Parameter(torch.zeros(out_features))


@MODELS.register_module()
class Consolidator(PETLMethod):
    r"""Consolidator (Hao et al., ICLR 2023).

    .. math::
        h = y + G \, \mathrm{shuffle}(x) + c

    with G a Linear of g groups, each of which reads n / g shuffled channels and writes m / g.
    The shuffle takes channels from g pieces of x in turn, for neighbours to meet different groups.
    In training a drop path drops the update. All of it starts at zero (in the official code, within
    0.001 of it) and folds into the weight. A site has :math:`m n / g + m` parameters.

    Args:
        groups: Number g of groups.
        drop_path_rate: Probability that an image passes by, in training.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``groups`` does not divide the width of a site.
    """

    def __init__(
        self,
        groups: Positive = 384,
        drop_path_rate: Probability = 0.0,
        sites: Sequence[str] = LINEAR_ROLES,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.groups = groups
        self.drop_path_rate = drop_path_rate

    def build(self, sites: list[Site]) -> None:
        """Creates one grouped Linear a site."""
        for site in sites:
            widths = site.in_features, site.out_features
            for width in widths:
                if width % self.groups:
                    raise ValueError(
                        f'groups={self.groups} does not divide the width {width} of {site.name!r}'
                    )
            self.local[site.key] = GroupedLinear(*widths, self.groups)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the groups make of the site's input."""
        own = self.local[site.key]
        shuffled = x.unflatten(-1, (self.groups, -1)).transpose(-1, -2).flatten(-2)
        read = shuffled.unflatten(-1, (self.groups, -1))
        update = torch.einsum('...gi,goi->...go', read, own.weight).flatten(-2) + own.bias
        return y + drop_path(update, self.drop_path_rate, self.training)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the groups to the weight, its columns in the order of x, and to the bias."""
        own = self.local[site.key]
        shuffled = torch.block_diag(*own.weight).unflatten(1, (-1, self.groups))
        weight = weight + shuffled.transpose(1, 2).flatten(1)
        return weight, own.bias if bias is None else bias + own.bias
