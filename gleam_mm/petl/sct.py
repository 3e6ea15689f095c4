"""SCT: a small Linear on the channels that matter most to the task."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.base import LossOfBatch, PETLMethod
from gleam_mm.petl.indices import require_within
from gleam_mm.registry import MODELS


class SalientLinear(nn.Linear):
    """A Linear (K -> K) on some ``channels``, which starts at zero.

    Args:
        number: Number K of channels; the first ones, until others are chosen.
        width: Number of all channels.
    """

    def __init__(self, number: int, width: int) -> None:
        super().__init__(number, number)
        self.width = width
        self.register_buffer('channels', torch.arange(number))
        self._register_load_state_dict_pre_hook(self._check_channels)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def _check_channels(self, state_dict: dict, prefix: str, *args: object) -> None:
        require_within(state_dict, f'{prefix}channels', 0, self.width)


@MODELS.register_module()
class SCT(PETLMethod):
    r"""Salient channel tuning (Zhao et al., IJCV 2024).

    .. math::
        h_S = y_S + M y_S + b

    behind the attention, for the K channels S of each site whose :math:`L_2` norm is largest over
    the first batches of the training; :meth:`calibrate` finds them. A file holds them, and whoever
    loads it needs no data. It starts at zero, and folds into the rows S of the weight. A site has
    :math:`K^2 + K` parameters.

    Args:
        number: Number K of channels.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``number`` exceeds the channels of a site.
    """

    def __init__(
        self,
        number: Positive = 96,
        sites: Sequence[str] = ('proj',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.number = number
        self._energy: dict[str, Tensor] = {}  # while calibrating: of each channel

    def build(self, sites: list[Site]) -> None:
        """Creates one small Linear a site."""
        for site in sites:
            if self.number > (width := site.out_features):
                raise ValueError(
                    f'number={self.number} exceeds the {width} channels of {site.name!r}'
                )
            self.local[site.key] = SalientLinear(self.number, width)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the small Linear makes of the salient channels."""
        if self._energy:
            self._energy[site.key] += y.float().square().flatten(0, -2).sum(0)
        own = self.local[site.key]
        update = own(y.index_select(-1, own.channels))
        return y.index_add(-1, own.channels, update.to(y.dtype))

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Folds the small Linear into the rows of the salient channels."""
        own = self.local[site.key]
        shift = weight.new_zeros(len(weight)) if bias is None else bias
        shift = shift.index_add(0, own.channels, own(shift[own.channels]))
        return weight.index_add(0, own.channels, own.weight @ weight[own.channels]), shift

    @torch.no_grad()
    def calibrate(self, batches: Iterable[LossOfBatch]) -> None:
        """Chooses the channels of the largest norm."""
        self._energy = {
            key: torch.zeros(site.out_features, device=self.local[key].channels.device)
            for key, site in self.sites.items()
        }
        try:
            for loss_of_batch in batches:
                loss_of_batch()
            for key, energy in self._energy.items():
                chosen = energy.topk(self.number).indices.sort().values
                self.local[key].channels.copy_(chosen)
        finally:
            self._energy = {}
