"""SURM: updates of full rank with few numbers, by a structure of the matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


@MODELS.register_module()
class SURM(PETLMethod):
    r"""Structured unrestricted-rank matrices (Sehanobish et al., 2024), of Toeplitz form.

    .. math::
        W' = W + T, \qquad T_{ij} = t_{i - j}

    with one T for each d x d block of a weight. It may have full rank, starts at zero and folds. A
    block has 2 d - 1 parameters. Circulant matrices, the paper's other form, are C3A's, which
    :class:`~gleam_mm.petl.HFPeft` runs.

    Args:
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    def __init__(
        self, sites: Sequence[str] = ('qkv',), blocks: Sequence[int] | None = None
    ) -> None:
        super().__init__(sites, blocks)

    def build(self, sites: list[Site]) -> None:
        """Creates the diagonals of every block of every site."""
        for site in sites:
            diagonals = torch.zeros(site.blocks_out, site.blocks_in, 2 * site.width - 1)
            self.local[site.key] = nn.ParameterDict({'diagonals': nn.Parameter(diagonals)})

    def compute(self, site: Site, x: Tensor) -> Tensor:
        """Multiplies by the updated weight."""
        return F.linear(x, *self.fold(site, site.weight, site.bias))

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the Toeplitz matrices to the weight."""
        diagonals = self.local[site.key]['diagonals']
        place = torch.arange(site.width, device=diagonals.device)
        blocks = diagonals[..., place[:, None] - place + site.width - 1]
        update = blocks.transpose(1, 2).flatten(2).flatten(0, 1)
        return weight + update[: site.out_features, : site.in_features], bias
