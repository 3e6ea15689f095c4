"""Convpass: convolutional bypasses beside the sublayers."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Grid, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.petl.probe import INPUT, OUTPUT, Sum
from gleam_mm.registry import MODELS


class ConvBottleneck(Bottleneck):
    """A bottleneck with a 3x3 convolution in its middle.

    Args:
        width: Token width d.
        bottleneck: Inner width r.
        conv_init: How the convolution starts: as the ``'identity'``, or at ``'xavier'``'s uniform
            values.
        bits: Bits a weight of the Linears, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    def __init__(
        self, width: int, bottleneck: int, conv_init: str = 'identity', bits: Bits | None = None
    ) -> None:
        super().__init__(width, bottleneck, bits=bits)
        self.conv = nn.Conv2d(bottleneck, bottleneck, 3, padding=1)
        nn.init.xavier_uniform_(self.down.weight)
        start = nn.init.dirac_ if conv_init == 'identity' else nn.init.xavier_uniform_
        start(self.conv.weight)
        nn.init.zeros_(self.conv.get_parameter('bias'))

    def mix(self, z: Tensor, grid: Grid) -> Tensor:
        """Convolves tokens (B, N, r) over their grid, each that stands outside of it on its own."""
        outside, mixed = grid.split(z)
        if mixed.shape[1]:
            # In the order of memory, the tokens are an image whose channels come last.
            image = mixed.unflatten(1, (grid.height, grid.width)).permute(0, 3, 1, 2)
            mixed = self.conv(image).permute(0, 2, 3, 1).flatten(1, 2)
        if not outside.shape[1]:
            return mixed
        # An image of 1x1 meets nothing but the centre of the kernel.
        alone = F.linear(outside, self.conv.weight[:, :, 1, 1], self.conv.bias)
        return grid.join(alone, mixed)


@MODELS.register_module()
class Convpass(PETLMethod):
    r"""Convolutional bypasses (Jie and Deng, 2022).

    .. math::
        h = y + s \, (U \sigma(\mathrm{Conv}_{3 \times 3}(\sigma(D x + b_D))) + b_U)

    with x the input and y the output of the attention or of the FFN, :math:`\sigma` the QuickGELU
    :math:`x \, \mathrm{sigmoid}(1.702 x)`, and the convolution on the patch grid. Prefix tokens
    pass through it as images of 1x1. U starts at zero, the convolution as the identity; in the
    official code half of the tasks of VTAB-1K have it start at Xavier's values, ``conv_init``. A
    site has :math:`2 d r + r + d + 9 r^2 + r` parameters.

    In Swin's attention the grid is the window; the official code convolves the whole feature map
    there. The block's drop path drops a bypass too: by itself, as in the official code, where it
    stands within the sublayer, and together with the sublayer's output where it comes behind it.

    Args:
        bottleneck: Inner width r.
        scale: Factor s, chosen for each task.
        drop_rate: Dropout in front of U.
        sites: Roles to adapt. ``('attn',)`` is the paper's Convpass-attn.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a weight of D and U, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
        conv_init: How the convolution starts: as the ``'identity'``, or at ``'xavier'``'s uniform
            values.

    Raises:
        ValueError: A site is no whole sublayer.
    """

    obstacle = (
        'its bypasses convolve neighbouring tokens and have nonlinearities inside, which no weight '
        'of a Linear can hold'
    )

    def __init__(
        self,
        bottleneck: Positive = 8,
        scale: float = 1.0,
        drop_rate: Probability = 0.1,
        sites: Sequence[str] = ('attn', 'ffn'),
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
        conv_init: Literal['identity', 'xavier'] = 'identity',
    ) -> None:
        super().__init__(sites, blocks)
        if strange := set(self.roles) - {'attn', 'ffn'}:
            raise ValueError(f'Convpass adapts the roles attn and ffn, not {sorted(strange)}')
        self.bottleneck = bottleneck
        self.scale = scale
        self.drop_rate = drop_rate
        self.bits = bits
        self.conv_init = conv_init

    @property
    def reads_grid(self) -> bool:
        """Its bypasses convolve."""
        return True

    def sums(self) -> Iterable[Sum]:
        """Around each sublayer there is a bypass."""
        return [((site, INPUT), (site, OUTPUT)) for site in self.sites.values()]

    def build(self, sites: list[Site]) -> None:
        """Creates one bypass a site."""
        for site in sites:
            self.local[site.key] = ConvBottleneck(
                site.width, self.bottleneck, self.conv_init, self.bits
            )

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the bypass makes of the sublayer's input."""
        own = self.local[site.key]
        z = _quick_gelu(own.down(x))
        z = _quick_gelu(own.mix(z, self.layout.grid(site)))
        z = self.layout.drop_path(site, own.up(F.dropout(z, self.drop_rate, self.training)))
        return torch.add(y, z, alpha=self.scale)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * F.sigmoid(1.702 * x)
