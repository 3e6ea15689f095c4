"""ABBA: the update is the Hadamard product of two low-rank matrices."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.constants import constant
from gleam_mm.petl.lora import LoRA
from gleam_mm.petl.lowrank import STARTS
from gleam_mm.registry import MODELS


@MODELS.register_module()
class ABBA(LoRA):
    r"""ABBA (Singhal et al., 2025).

    .. math::
        \Delta W = s \, (B_1 A_1) \odot (B_2 A_2), \qquad s = \alpha^2 / r

    :math:`B_1 A_1` starts at the part of the weight with the largest singular values, :math:`B_2`
    at zero, and all four are trained. LoHa's form (``HFPeft``) starts both pairs at random and
    leaves one matrix at zero. The product has the rank r^2 and is computed as a low-rank update:
    :math:`(B_1 A_1) \odot (B_2 A_2) = (B_1 \odot_r B_2) (A_1 \odot_c A_2)` with the products of all
    pairs of columns, and of rows. A site has 2 r (m + n) parameters.

    Args:
        rank: Inner width r of either pair, half that of a LoRA of the same size.
        alpha: The update is scaled by ``alpha ** 2 / rank``.
        drop_rate: Dropout of the input.
        sites: Roles to adapt, among ``qkv``, ``proj``, ``fc1`` and ``fc2``.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: A site is no Linear, or has fewer singular values than ``rank``.
    """

    def __init__(
        self,
        rank: Positive = 4,
        alpha: float = 4.0,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = ('qkv',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(rank, alpha**2, drop_rate, sites, blocks=blocks)

    def build(self, sites: list[Site]) -> None:
        """Creates two pairs of matrices a site."""
        for site in sites:
            if self.rank > min(site.weight.shape):
                raise ValueError(
                    f'rank={self.rank} exceeds the {min(site.weight.shape)} singular values of '
                    f'{site.name!r}'
                )
            first, second = (self.build_pair(site, self.rank) for _ in range(2))
            down, up = STARTS['pissa'](site.weight, self.rank, 1.0)
            with torch.no_grad():
                first.down.copy_(down)
                first.up.copy_(up)
            nn.init.kaiming_uniform_(second.down, a=math.sqrt(5))
            self.local[site.key] = nn.ModuleDict(dict(first=first, second=second))

    @constant
    def factors(self, site: Site, training: bool = False) -> tuple[Tensor, Tensor]:
        """The matrices of rank r^2 whose product is the Hadamard product."""
        first, second = self.local[site.key]['first'], self.local[site.key]['second']
        down = (first.down[:, None] * second.down[None]).flatten(0, 1)
        up = (first.up[:, :, None] * second.up[:, None]).flatten(1)
        return down, up
