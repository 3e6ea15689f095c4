"""ILA: bottlenecks with a depthwise convolution behind the blocks."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.petl.probe import INPUT, OUTPUT, Sum
from gleam_mm.registry import MODELS


@MODELS.register_module()
class ILA(PETLMethod):
    r"""Inter-layer adapter (Rios et al., 2024), in its form with padding.

    .. math::
        z = \mathrm{PW}(\mathrm{DW}_{3 \times 3}(\mathrm{GELU}(D x + b_D))), \qquad
        y = x + U \, \mathrm{GELU}(z) + b_U

    behind a block, with a depthwise convolution to m r channels over the grid and a 1 x 1
    convolution back to r; a class token passes through both as an image of 1 x 1. Two of the
    official code's adapters do without padding, so that the grid shrinks and later blocks cost
    less; here the grid stays. U starts at zero, there as Xavier's. A block has
    :math:`2 d r + 2 r + d + 10 m r + m r^2` parameters.

    Args:
        bottleneck: Inner width r.
        multiplier: How many channels m the depthwise convolution makes of each.
        drop_rate: Dropout of what is added.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    obstacle = 'it mixes neighbouring tokens and has GELUs inside, which no weight of a Linear does'

    def __init__(
        self,
        bottleneck: Positive = 8,
        multiplier: Positive = 2,
        drop_rate: Probability = 0.1,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(('block',), blocks)
        self.bottleneck = bottleneck
        self.multiplier = multiplier
        self.drop_rate = drop_rate

    @property
    def reads_grid(self) -> bool:
        """It convolves."""
        return True

    def sums(self) -> Iterable[Sum]:
        """What a block gives is on the grid of what it reads."""
        return [((site, INPUT), (site, OUTPUT)) for site in self.sites.values()]

    def build(self, sites: list[Site]) -> None:
        """Creates one bottleneck and two convolutions a block."""
        for site in sites:
            own = Bottleneck(site.width, self.bottleneck)
            wide = self.multiplier * self.bottleneck
            own.depthwise = nn.Conv2d(self.bottleneck, wide, 3, padding=1, groups=self.bottleneck)
            own.pointwise = nn.Linear(wide, self.bottleneck)
            for layer in (own.depthwise, own.pointwise):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.get_parameter('bias'))
            self.local[site.key] = own

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the bottleneck makes of the block's output over its grid."""
        own, grid = self.local[site.key], self.layout.grid(site)
        outside, inside = grid.split(F.gelu(own.down(y.flatten(1, -2))))
        image = inside.transpose(1, 2).unflatten(2, (grid.height, grid.width))
        mixed = own.depthwise(image).flatten(2).transpose(1, 2)
        if outside.shape[1]:  # of a kernel on 1 x 1 pixels, only the centre meets one
            centre = own.depthwise.weight[:, 0, 1, 1]
            single = outside.repeat_interleave(self.multiplier, -1) * centre + own.depthwise.bias
            mixed = grid.join(single.to(mixed.dtype), mixed)
        update = own.up(F.gelu(own.pointwise(mixed)))
        return y + F.dropout(update, self.drop_rate, self.training).view_as(y)
