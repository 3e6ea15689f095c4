"""Adapter+: a bottleneck behind every block, with a learned scale for each channel."""

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks.drop import drop_path
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.registry import MODELS


class ScaledBottleneck(Bottleneck):
    """A bottleneck with a scale for each channel, whose weights start as Houlsby et al. start them.

    Args:
        width: Token width d.
        bottleneck: Inner width r.
        bits: Bits a weight, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    def __init__(self, width: int, bottleneck: int, bits: Bits | None = None) -> None:
        super().__init__(width, bottleneck, bits=bits)
        self.scale = nn.Parameter(torch.ones(width))
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=0.01, a=-0.02, b=0.02)


@MODELS.register_module()
class AdapterPlus(PETLMethod):
    r"""Adapter+ (Steitz and Roth, CVPR 2024).

    .. math::
        x' = x + s \odot (U \, \mathrm{GELU}(D x + b_D) + b_U)

    with x the output of a whole block, behind its last residual connection, and s one factor a
    channel, 1 at first. The weights start as :math:`N(0, 0.01^2)` within two standard deviations
    and the biases at zero, so that the model starts *near* the pretrained one. In training the
    update has a drop path of its own. A block has :math:`2 d r + r + 2 d` parameters.

    Args:
        bottleneck: Inner width r.
        drop_path_rate: Probability that an image passes by an adapter, in training.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
    """

    obstacle = (
        'its bottleneck reads the residual stream behind a block and has a GELU inside, which no '
        'weight of a Linear can hold'
    )

    def __init__(
        self,
        bottleneck: Positive = 8,
        drop_path_rate: Probability = 0.1,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
    ) -> None:
        super().__init__(('block',), blocks)
        self.bottleneck = bottleneck
        self.drop_path_rate = drop_path_rate
        self.bits = bits

    def build(self, sites: list[Site]) -> None:
        """Creates one bottleneck a block."""
        for site in sites:
            self.local[site.key] = ScaledBottleneck(site.width, self.bottleneck, self.bits)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the bottleneck makes of the block's output."""
        own = self.local[site.key]
        update = own.up(F.gelu(own.down(y))) * own.scale
        return y + drop_path(update, self.drop_path_rate, self.training)
