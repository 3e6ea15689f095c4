"""LoRETTA: the matrices of a LoRA, or of an adapter, as tensor trains."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.lowrank import add_update, project
from gleam_mm.petl.tensor_train import TensorTrain
from gleam_mm.registry import MODELS


@MODELS.register_module()
class LoRETTA(PETLMethod):
    r"""Low-rank economic tensor-train adaptation (Yang et al., NAACL 2024).

    With ``form='rep'``, the update of a Linear, whose matrices are tensor trains:

    .. math::
        h = W_0 x + \tfrac{\alpha}{r} B A x

    With ``form='adp'``, a bottleneck behind it, :math:`y + U \, \mathrm{GELU}(D y + b_D) + b_U`,
    whose matrices are tensor trains. B and U start at zero, through their last cores. The paper
    trains norms as well (:class:`~gleam_mm.petl.BitFit` with ``norms``), and starts 'rep' at noise.
    A matrix whose sides have the factors :math:`f_1 \dots f_p` has
    :math:`k (f_1 + f_p) + k^2 (f_2 + \dots + f_{p-1})` parameters.

    Args:
        form: ``'rep'`` or ``'adp'``.
        rank: Inner width r of the two matrices.
        tensor_rank: Inner width k of the trains.
        alpha: The update of 'rep' is scaled by ``alpha / rank``.
        sites: Roles to adapt: qkv for 'rep', and proj and fc2 for 'adp' by default.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: A site is no Linear.
    """

    def __init__(
        self,
        form: Literal['rep', 'adp'] = 'rep',
        rank: Positive = 8,
        tensor_rank: Positive = 5,
        alpha: float = 8.0,
        sites: Sequence[str] | None = None,
        blocks: Sequence[int] | None = None,
    ) -> None:
        default = ('qkv',) if form == 'rep' else ('proj', 'fc2')
        super().__init__(default if sites is None else sites, blocks)
        self.form = form
        self.rank = rank
        self.tensor_rank = tensor_rank
        self.scale = alpha / rank

    def build(self, sites: list[Site]) -> None:
        """Creates two trains a site, and biases for adapters."""
        for site in sites:
            self.linear_of(site)
            rows, columns = site.out_features, site.in_features
            read = rows if self.form == 'adp' else columns
            own = nn.Module()
            own.down = TensorTrain(self.rank, read, self.tensor_rank)
            own.up = TensorTrain(rows, self.rank, self.tensor_rank, zero=True)
            if self.form == 'adp':
                own.down_bias = nn.Parameter(torch.zeros(self.rank))
                own.up_bias = nn.Parameter(torch.zeros(rows))
            self.local[site.key] = own

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the update, or what the adapter makes of the output."""
        own = self.local[site.key]
        down, up = own.down.matrix(), own.up.matrix()
        if self.form == 'rep':
            return add_update(*project(y, x, down), up, self.scale)
        return y + F.linear(F.gelu(F.linear(y, down, own.down_bias)), up, own.up_bias)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the update to the weight.

        Raises:
            MergeError: The form is 'adp'.
        """
        if self.form == 'adp':
            raise self.refusal('its adapters have a GELU inside, which no weight can hold')
        own = self.local[site.key]
        return torch.addmm(weight, own.up.matrix(), own.down.matrix(), alpha=self.scale), bias
