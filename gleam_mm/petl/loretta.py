"""LoRETTA: the matrices of a LoRA, or of an adapter, as tensor trains."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.lowrank import add_update
from gleam_mm.registry import MODELS


class TensorTrain(nn.Module):
    """A matrix (rows, columns) as a product of small cores, ``cores``.

    Both sides are cut into two or three factors that are as equal as they come. One core stands
    for each, (1 or k, factor, k or 1), from the first factor of the rows to the last one of the
    columns.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        rank: The inner width k of the train.
        zero: Whether the matrix starts at zero, by its last core; else at numbers with the
            variance of ``kaiming_uniform_``, 1 / (3 columns).
    """

    def __init__(self, rows: int, columns: int, rank: int, zero: bool = False) -> None:
        super().__init__()
        self.shape = rows, columns
        factors = [*factorized(rows), *factorized(columns)]
        self.cores = nn.ParameterList()
        for index, factor in enumerate(factors):
            left = 1 if index == 0 else rank
            right = 1 if index == len(factors) - 1 else rank
            self.cores.append(nn.Parameter(torch.empty(left, factor, right)))
        variance = 1 / (3 * columns) / rank ** (len(factors) - 1)
        for core in self.cores:
            nn.init.normal_(core, std=variance ** (0.5 / len(factors)))
        if zero:
            nn.init.zeros_(self.cores[-1])

    def matrix(self) -> Tensor:
        """The matrix."""
        product = self.cores[0].flatten(0, 1)
        for core in list(self.cores)[1:]:
            product = (product @ core.flatten(1)).view(-1, core.shape[2])
        return product.view(self.shape)


def factorized(number: int) -> list[int]:
    """Two or three factors of a number, the small ones first: 768 is 8 x 8 x 12."""
    wanted = 3 if number >= 128 else 2
    factors = []
    for left in range(wanted, 1, -1):
        root = round(number ** (1 / left) + 1e-9)
        factor = max(n for n in range(1, root + 1) if number % n == 0)
        factors.append(factor)
        number //= factor
    return [*factors, number]


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
            rows, columns = self.linear_of(site).weight.shape
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
            return add_update(y, F.linear(x, down), up, self.scale)
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
