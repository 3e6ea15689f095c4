"""SPT: one budget for LoRAs or adapters where many weights matter, and for single weights else."""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Range
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.base import LossOfBatch
from gleam_mm.petl.sparse_entries import Pool, offsets_of
from gleam_mm.petl.weight_tuning import WeightTuning
from gleam_mm.registry import MODELS


@MODELS.register_module()
class SPT(WeightTuning):
    r"""Sensitivity-aware visual parameter-efficient fine-tuning (He et al., ICCV 2023).

    .. math::
        y = (W_0 + P(\theta)) x + b_0 + U \sigma(D x)

    :meth:`calibrate` sums :math:`g^2` of every weight over a few batches. A matrix gets a
    structure, a LoRA (:math:`\sigma` the identity) or an adapter (GELU, and biases), if it has at
    least a share :math:`1 / \alpha` of the structure's size among the most sensitive weights. Of
    the others, the sensitive weights themselves are trained. As many weights count as sensitive as
    the budget pays for; what structures leave of it goes to further single weights. All of it is
    one vector of parameters, so that who loads a file needs no data.

    The official code lets q, k and v be three matrices where here they are one, tunes norms and
    biases as well (:class:`~gleam_mm.petl.BitFit` with ``norms``), has a drop path of 0.1 on the
    structures, and meets a budget only roughly. Until calibration, single weights are trained that
    are evenly spread.

    Args:
        budget: Number of parameters.
        form: The structure, ``'lora'`` or ``'adapter'``.
        rank: Its inner width r.
        alpha: How many times larger than its number of sensitive weights a structure may be, at
            least 1.
        sites: Roles to adapt, among ``qkv``, ``proj``, ``fc1`` and ``fc2``.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: A site is no Linear, or there are fewer weights than ``budget``.
    """

    def __init__(
        self,
        budget: Positive = 400_000,
        form: Literal['lora', 'adapter'] = 'lora',
        rank: Positive = 8,
        alpha: Annotated[float, Range(1)] = 10.0,
        sites: Sequence[str] = LINEAR_ROLES,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.budget = budget
        self.form = form
        self.rank = rank
        self.alpha = alpha

    def build(self, sites: list[Site]) -> None:
        """Creates the budget."""
        self._shapes = [tuple(self.linear_of(site).weight.shape) for site in sites]
        self._offsets, total = offsets_of(sites)
        if self.budget > total:
            raise ValueError(f'budget={self.budget} exceeds the {total} weights of the sites')
        self.shared['pool'] = Pool(self.budget, total, len(sites))

    def changed(self, site: Site, weight: Tensor) -> Tensor:
        """The weight with the single weights' updates and, of a LoRA, the product."""
        weight = self.shared['pool'].add_to(weight, self._offsets[site.key])
        if self.form == 'adapter':
            return weight
        down, up = self._structure(site)[:2]
        return torch.addmm(weight, up, down)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the update to the site's weight.

        Raises:
            MergeError: The structures are adapters.
        """
        if self.form == 'adapter':
            raise self.refusal('its adapters have a GELU inside, which no weight can hold')
        return super().fold(site, weight, bias)

    def compute(self, site: Site, x: Tensor) -> Tensor:
        """Computes with the updated weight, and adds what an adapter makes of the input."""
        y = super().compute(site, x)
        if self.form == 'lora' or self._probed is not None:
            return y
        down, up, down_bias, up_bias = self._structure(site)
        return y + F.linear(F.gelu(F.linear(x, down, down_bias)), up, up_bias)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[LossOfBatch]) -> None:
        """Spends the budget where the weights are most sensitive."""
        pool = self.shared['pool']
        sensitivity = torch.cat([g.flatten() for g in self.summed_gradients(batches, torch.square)])
        device = sensitivity.device
        offsets = torch.tensor(list(self._offsets.values()), device=device)
        sizes = torch.tensor([self._size(shape) for shape in self._shapes], device=device)
        most = min(len(sensitivity), int(self.alpha * self.budget))
        order = sensitivity.topk(most).indices
        owners = torch.searchsorted(offsets, order, right=True) - 1

        def spent(number: int) -> tuple[Tensor, int]:
            """Whether each matrix gets the structure, and the cost in all."""
            counts = torch.bincount(owners[:number], minlength=len(sizes))
            structured = counts >= sizes / self.alpha
            return structured, int(torch.where(structured, sizes, counts).sum())

        least, beyond = 0, most + 1  # the cost never falls with the number
        while beyond - least > 1:
            middle = (least + beyond) // 2
            least, beyond = (middle, beyond) if spent(middle)[1] <= self.budget else (least, middle)
        structured, _ = spent(least)
        pool.values.zero_()
        pool.positions.fill_(-1)
        pool.starts.fill_(-1)
        used = 0
        for index in structured.nonzero().flatten().tolist():
            rows, columns = self._shapes[index]
            pool.starts[index] = used
            bound = 1 / math.sqrt(columns)
            nn.init.uniform_(pool.values[used : used + self.rank * columns], -bound, bound)
            used += self._size((rows, columns))
        single = order[~structured[owners]][: self.budget - used]
        pool.positions[used : used + len(single)] = single

    def _structure(self, site: Site) -> list[Tensor]:
        """D, U and, of an adapter, their biases; zeros where the site has no structure."""
        index = list(self._offsets).index(site.key)
        rows, columns = self._shapes[index]
        numbers = self.shared['pool'].structure(index, self._size((rows, columns)))
        lengths = [self.rank * columns, rows * self.rank]
        if self.form == 'adapter':
            lengths += [self.rank, rows]
        down, up, *biases = numbers.split(lengths)
        return [down.view(self.rank, columns), up.view(rows, self.rank), *biases]

    def _size(self, shape: Sequence[int]) -> int:
        biases = self.rank + shape[0] if self.form == 'adapter' else 0
        return self.rank * sum(shape) + biases
