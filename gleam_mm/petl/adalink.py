"""AdaLink: a low-rank link between the embedding of the tokens and the blocks."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.lora import LowRankPair
from gleam_mm.registry import MODELS


@MODELS.register_module()
class AdaLink(PETLMethod):
    r"""AdaLink (Wang et al., 2023).

    .. math::
        x' = x + U D x

    in front of the first block, for all tokens and behind their positions. The blocks themselves
    stay a black box. U starts at zero. It has 2 d r parameters.

    Args:
        rank: Inner width r.
        blocks: The blocks in front of which there is a link, as in
            :class:`~gleam_mm.petl.PETLMethod`.
    """

    obstacle = 'it adapts tokens behind their positions, which come from no weight of a Linear'

    def __init__(self, rank: Positive = 8, blocks: Sequence[int] | None = (0,)) -> None:
        super().__init__(('block',), blocks)
        self.rank = rank

    def build(self, sites: list[Site]) -> None:
        """Creates one pair of matrices a block."""
        for site in sites:
            self.local[site.key] = LowRankPair(site.width, site.width, self.rank)

    def before(self, site: Site, x: Tensor) -> Tensor:
        """Adapts what the block reads."""
        pair = self.local[site.key]
        return x + F.linear(F.linear(x, pair.down), pair.up)
