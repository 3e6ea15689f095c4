"""Numbers that are added to single entries of several weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gleam_mm.layouts import Site
from gleam_mm.petl.indices import require_within


class SparseEntries(nn.Module):
    """Numbers that are added to K entries of several weights, taken as one long vector.

    Args:
        number: How many, K.
        total: How many entries there are.
    """

    positions: Tensor

    def __init__(self, number: int, total: int) -> None:
        super().__init__()
        self.total = total
        self.values = nn.Parameter(torch.zeros(number))
        self.register_buffer('positions', torch.arange(number) * (total // number))
        self._register_state_dict_hook(_compact)
        self._register_load_state_dict_pre_hook(self._check)

    def add_to(self, weight: Tensor, offset: int) -> Tensor:
        """A weight with its share of the values.

        Args:
            weight: The weight.
            offset: Where its entries begin among those of all weights.
        """
        place = self.positions - offset
        inside = (place >= 0) & (place < weight.numel())
        flat = weight.reshape(-1).scatter_add(
            0, place.clamp(0, weight.numel() - 1), (self.values * inside).to(weight.dtype)
        )
        return flat.view_as(weight)

    def _check(self, state_dict: dict, prefix: str, *args: object) -> None:
        require_within(state_dict, f'{prefix}positions', -1, self.total)


class Pool(SparseEntries):
    """A budget of numbers, each an entry of a weight or a part of a site's structure.

    Args:
        number: The budget.
        total: How many entries the weights have.
        sites: Number of sites.

    Attributes:
        starts (Tensor): Where a site's structure begins in the budget, or -1 for none.
    """

    starts: Tensor

    def __init__(self, number: int, total: int, sites: int) -> None:
        super().__init__(number, total)
        self.register_buffer('starts', torch.full((sites,), -1))
        self._register_load_state_dict_pre_hook(self._check_starts)

    def structure(self, index: int, size: int) -> Tensor:
        """The numbers of a site's structure, all zero where it has none."""
        start = self.starts[index]
        place = torch.arange(size, device=self.values.device) + start
        return self.values[place.clamp(0, len(self.values) - 1)] * (start >= 0)

    def _check_starts(self, state_dict: dict, prefix: str, *args: object) -> None:
        require_within(state_dict, f'{prefix}starts', -1, len(self.values))


def _compact(entries: SparseEntries, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    if entries.total <= 2**31:
        name = f'{prefix}positions'
        state_dict[name] = state_dict[name].to(torch.int32)


def offsets_of(sites: Iterable[Site]) -> tuple[dict[str, int], int]:
    """Where the entries of each site's weight begin, by key, and how many there are in all."""
    offsets, total = {}, 0
    for site in sites:
        offsets[site.key] = total
        total += site.require_affine().weight.numel()
    return offsets, total
