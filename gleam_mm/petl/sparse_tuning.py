"""Sparse tuning: a few weights of every row learn, and stay in their place."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.base import LossOfBatch
from gleam_mm.petl.indices import require_within
from gleam_mm.petl.weight_tuning import WeightTuning, weight_of
from gleam_mm.registry import MODELS


class SparseRows(nn.Module):
    """An update of k numbers a row: what is added, and in which columns.

    A state dict has the columns in the smallest type that PyTorch has for them, int16 up to a width
    of 32,768. At work they are int64, which PyTorch indexes by and NCCL sends.

    Args:
        columns: The columns (m, k) where the update stands, below n.
        width: The number n of columns that there are.
    """

    columns: Tensor

    def __init__(self, columns: Tensor, width: int) -> None:
        super().__init__()
        self.width = width
        self.values = nn.Parameter(torch.zeros(columns.shape))
        self.register_buffer('columns', columns.to(self.values.device))
        self._register_state_dict_hook(_compact_columns)
        self._register_load_state_dict_pre_hook(self._take_columns)

    def add_to(self, weight: Tensor) -> Tensor:
        """A weight (m, n) with the update."""
        return weight.scatter_add(1, self.columns, self.values.to(weight.dtype))

    def _take_columns(self, state_dict: dict, prefix: str, *args: object) -> None:
        name = f'{prefix}columns'
        require_within(state_dict, name, 0, self.width)
        if name in state_dict:  # which load_state_dict(assign=True) takes as they are
            state_dict[name] = state_dict[name].long()


def _compact_columns(rows: SparseRows, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    dtype = torch.uint8 if rows.width <= 2**8 else torch.int16
    dtype = dtype if rows.width <= 2**15 else torch.int32
    state_dict[f'{prefix}columns'] = state_dict[f'{prefix}columns'].to(dtype)


@MODELS.register_module()
class SparseTuning(WeightTuning):
    r"""Tunes k weights of every row of the Linears: NeuroAda (Zhang et al., 2025) and GPS.

    .. math::
        y = (W_0 + P(\theta)) x + b_0

    P puts k numbers a row into fixed columns; they start at zero. A Linear of m rows has
    :math:`k m` parameters, and a ViT of width d and depth L :math:`9 k d L` of them.

    With ``select='magnitude'`` the columns are those of the largest :math:`|W_0|`, which needs no
    data (NeuroAda). With ``'gradient'`` they are those of the largest
    :math:`|\partial L / \partial W|` over the first batches of the training (GPS, Zhang et al.,
    CVPR 2024): :meth:`calibrate` finds them, and until then they are those of ``'magnitude'``. GPS
    takes the gradient of a contrastive loss, here it is that of the training's own; and it trains
    biases as well, which a :class:`~gleam_mm.petl.Compose` with :class:`~gleam_mm.petl.BitFit`
    does. A file holds columns and values, and whoever loads it needs no data.

    Args:
        k: Trained weights a row.
        select: What chooses them, ``'magnitude'`` or ``'gradient'``.
        sites: Roles to adapt, among ``qkv``, ``proj``, ``fc1`` and ``fc2``.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: A site is no Linear, or has fewer than ``k`` columns.
    """

    def __init__(
        self,
        k: Positive = 1,
        select: Literal['magnitude', 'gradient'] = 'magnitude',
        sites: Sequence[str] = LINEAR_ROLES,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.k = k
        self.select_by = select

    def build(self, sites: list[Site]) -> None:
        """Creates one update a site, in the columns of the largest weights."""
        for site in sites:
            width = self.linear_of(site).in_features
            if self.k > width:
                raise ValueError(f'k={self.k} exceeds the {width} columns of {site.name!r}')
            self.local[site.key] = SparseRows(self._largest(weight_of(site)), width)

    def changed(self, site: Site, weight: Tensor) -> Tensor:
        """The weight with the update in its columns."""
        return self.local[site.key].add_to(weight)

    @property
    def calibrates(self) -> bool:
        """Whether gradients choose the columns, for which data are looked at."""
        return self.select_by == 'gradient'

    def calibrate(self, batches: Iterable[LossOfBatch]) -> None:
        """Moves the updates to the columns where the summed gradient is largest."""
        if not self.calibrates:
            return
        total = self.summed_gradients(batches)
        for key, gradient in zip(self.sites, total, strict=True):
            self.local[key].columns.copy_(self._largest(gradient))

    def _largest(self, matrix: Tensor) -> Tensor:
        """The columns (m, k) of the largest numbers of each row, in their order."""
        return matrix.detach().abs().topk(self.k, dim=1).indices.sort(dim=1).values
