"""LT-SFT: the weights that a first training moves most are trained, wherever they stand."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gleam_mm.arguments import NonNegative, Positive
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.base import LossOfBatch
from gleam_mm.petl.rehearsal import rehearsed
from gleam_mm.petl.sparse_entries import SparseEntries, offsets_of
from gleam_mm.petl.weight_tuning import WeightTuning
from gleam_mm.registry import MODELS


@MODELS.register_module()
class LTSFT(WeightTuning):
    r"""Lottery ticket sparse fine-tuning (Ansell et al., ACL 2022).

    .. math::
        W = W_0 + P(\theta)

    with K numbers :math:`\theta` in all, where :math:`|W_1 - W_0|` is largest over all weights
    together: :meth:`calibrate` trains the weights of the Linears for a short while to find
    :math:`W_1`, and rewinds them. The paper trains as long as afterwards, and every parameter of
    the network; here the head stays as it is in between. Until then, and without calibration, the
    entries are evenly spread. A file holds positions, of four bytes each, and values.

    Args:
        number: Number K of trained weights.
        steps: Steps of the first training.
        lr: Its learning rate.
        sites: Roles to adapt, among ``qkv``, ``proj``, ``fc1`` and ``fc2``.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: A site is no Linear, or there are fewer weights than ``number``.
    """

    counts_weights = ('number',)

    def __init__(
        self,
        number: Positive = 200_000,
        steps: Positive = 50,
        lr: NonNegative = 1e-4,
        sites: Sequence[str] = LINEAR_ROLES,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.number = number
        self.steps = steps
        self.lr = lr

    def build(self, sites: list[Site]) -> None:
        """Creates the values and where they stand."""
        for site in sites:
            self.linear_of(site)
        self._offsets, total = offsets_of(sites)
        if self.number > total:
            raise ValueError(f'number={self.number} exceeds the {total} weights of the sites')
        self.shared['entries'] = SparseEntries(self.number, total)

    def changed(self, site: Site, weight: Tensor) -> Tensor:
        """The weight with its share of the values."""
        return self.shared['entries'].add_to(weight, self._offsets[site.key])

    def calibrate(self, batches: Iterable[LossOfBatch]) -> None:
        """Moves the values to the weights that a short training of all of them moves most."""
        with self.probed() as weights:
            before = [weight.detach().clone() for weight in weights]
            with rehearsed(weights, batches, self.steps, self.lr):
                change = [
                    (weight.detach() - start).abs().flatten()
                    for weight, start in zip(weights, before, strict=True)
                ]
        chosen = torch.cat(change).topk(self.number).indices.sort().values
        self.shared['entries'].positions.copy_(chosen)
