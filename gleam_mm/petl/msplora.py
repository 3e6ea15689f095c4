"""MSPLoRA: a LoRA of the network, one of each third of it, and one of each block."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Layout, Site
from gleam_mm.petl.constants import constant
from gleam_mm.petl.lora import LoRA
from gleam_mm.registry import MODELS


@MODELS.register_module()
class MSPLoRA(LoRA):
    r"""Multi-scale pyramid LoRA (Zhao et al., 2025).

    .. math::
        h = W_0 x + s \, (B_g A_g + B_{k(i)} A_{k(i)} + B_i A_i) x

    at block i, whose part of the network is k(i). What all blocks need is learned once, and each
    has a little of its own. In a Swin, whose widths differ, each stage has its pyramid. With ranks
    4, 2, 1 and three parts, a role of a ViT has :math:`(m + n)(4 + 3 \cdot 2 + 12 \cdot 1)`
    parameters.

    Args:
        ranks: Ranks of the pairs of the network, of a part, and of a block.
        groups: Number of parts, of equally many blocks.
        scale: Factor s.
        drop_rate: Dropout of the input.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: There are not three ranks.
    """

    def __init__(
        self,
        ranks: Sequence[Positive] = (4, 2, 1),
        groups: Positive = 3,
        scale: float = 1.0,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = ('qkv',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        if len(ranks) != 3:
            raise ValueError(f'ranks={list(ranks)}: give one of the network, a part and a block')
        super().__init__(ranks[2], scale * ranks[2], drop_rate, sites, blocks=blocks)
        self.ranks = tuple(ranks)
        self.groups = groups
        self._number = 0

    def select(self, layout: Layout) -> list[Site]:
        """The sites, by the blocks' places among all of the network's."""
        self._number = len(layout.sites(('block',)))
        return super().select(layout)

    def build(self, sites: list[Site]) -> None:
        """Creates the pairs of all levels."""
        super().build(sites)
        for site in sites:
            for key, rank in zip(self.levels(site), self.ranks[:2], strict=True):
                if key not in self.shared:
                    self.shared[key] = self.build_pair(site, rank)

    def levels(self, site: Site) -> tuple[str, str]:
        """The names in :attr:`shared` of the pairs that a site shares with others."""
        whole = f'{site.role}/{site.stage}'
        return whole, f'{whole}/{site.index * self.groups // self._number}'

    @constant
    def factors(self, site: Site, training: bool = False) -> tuple[Tensor, Tensor]:
        """The matrices of the three levels, side by side."""
        pairs = [*(self.shared[key] for key in self.levels(site)), self.local[site.key]]
        return torch.cat([p.down for p in pairs]), torch.cat([p.up for p in pairs], dim=1)
