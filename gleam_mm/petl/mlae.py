"""MLAE: a LoRA whose ranks are experts, of which training drops some."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.constants import constant
from gleam_mm.petl.lora import LoRA
from gleam_mm.registry import MODELS


@MODELS.register_module()
class MLAE(LoRA):
    r"""Masked LoRA experts (Wang et al., 2024).

    .. math::
        h = y + \sum_{i=1}^{r} \lambda_i \, b_i a_i^T x

    with rank-1 experts :math:`b_i a_i^T` and a learned coefficient for each. In training each
    coefficient is dropped with a probability of its own, and the others are scaled up for it, so
    that experts learn different things. A site has :math:`r (m + n) + r` parameters.

    Args:
        rank: Number r of experts.
        expert_drop_rate: Probability that a step goes without an expert.
        coefficient: Where the coefficients start.
        drop_rate: Dropout of the input.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
    """

    alike_everywhere = False

    def __init__(
        self,
        rank: Positive = 8,
        expert_drop_rate: Probability = 0.5,
        coefficient: float = 1.0,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = LINEAR_ROLES,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
    ) -> None:
        super().__init__(rank, rank, drop_rate, sites, blocks=blocks, bits=bits)
        self.expert_drop_rate = expert_drop_rate
        self.coefficient = coefficient

    def build(self, sites: list[Site]) -> None:
        """Creates the experts and the coefficients of every site."""
        super().build(sites)
        for pair in self.local.values():
            pair.coefficients = nn.Parameter(torch.full((self.rank,), self.coefficient))

    @constant
    def factors(self, site: Site, training: bool = False) -> tuple[Tensor, Tensor]:
        """The experts as two matrices, the second multiplied by their coefficients."""
        pair = self.local[site.key]
        kept = F.dropout(pair.coefficients, self.expert_drop_rate, training)
        return pair.matrix('down'), pair.matrix('up') * kept
