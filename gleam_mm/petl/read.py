"""READ: a recurrent cell reads what the blocks give, and corrects the last one."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Layout, PassState, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.gru import GRUCell
from gleam_mm.petl.probe import OUTPUT, Sum
from gleam_mm.registry import MODELS


class Reader(nn.Module):
    """The cell behind a norm, and ``up``, which starts at zero.

    Args:
        width: Token width d.
        hidden: Width r of the state.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cell = GRUCell(width, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)


class _States(PassState):
    """The state of the cell, and the sum of all its states, in a pass."""

    def __init__(self) -> None:
        self.h_and_sum: tuple[Tensor, Tensor] | None = None


@MODELS.register_module()
class READ(PETLMethod):
    r"""Recurrent adaptation (Wang et al., 2023).

    .. math::
        h_i = \mathrm{GRU}(\mathrm{LN}(\phi_i), h_{i-1}), \qquad
        y = \phi_L + U \, \tfrac{1}{L} \sum_i h_i + b

    token by token, with :math:`\phi_i` what block i gives. Nothing is changed in front of the last
    block's output, so that no gradient enters the backbone and training keeps none of its
    activations. In a Swin the blocks of the last stage are read. U starts at zero. There are
    :math:`3 r (d + r + 2) + 2 d + r d + d` parameters, whatever the depth.

    Args:
        hidden: Width r of the state.
        blocks: Transformer blocks to read, of which the last is corrected, as in
            :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``blocks`` has none of the last stage.
    """

    obstacle = 'a recurrent cell reads all blocks, which no weight of a Linear can stand for'

    def __init__(self, hidden: Positive = 64, blocks: Sequence[int] | None = None) -> None:
        super().__init__(('block',), blocks)
        self.hidden = hidden
        self._states = _States()

    def select(self, layout: Layout) -> list[Site]:
        """The blocks of the last stage."""
        last = layout.sites(('block',))[-1].stage
        sites = [site for site in super().select(layout) if site.stage == last]
        if not sites:
            raise ValueError(
                f'blocks={list(self.blocks or ())}: READ reads blocks of the last stage'
            )
        return sites

    def sums(self) -> Iterable[Sum]:
        """The states behind all blocks."""
        return [[(site, OUTPUT) for site in self.sites.values()]]

    def build(self, sites: list[Site]) -> None:
        """Creates the cell."""
        self.shared['reader'] = Reader(sites[-1].width, self.hidden)

    def begin(self) -> None:
        """Forgets what a pass that broke off has left."""
        self._states.h_and_sum = None

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Lets the cell read a block's output; corrects the last one.

        Raises:
            RuntimeError: The blocks before were not called in this pass.
        """
        reader = self.shared['reader']
        zeros = y.new_zeros(*y.shape[:-1], self.hidden)
        state = (zeros, zeros) if site.key == next(iter(self.sites)) else self._states.h_and_sum
        if state is None:
            raise RuntimeError(
                f'the state of READ is not known at {site.name!r}: call the backbone itself, not a '
                'part of it, and without gradient checkpointing, which saves nothing here'
            )
        h, total = state
        h = reader.cell(reader.norm(y), h)
        self._states.h_and_sum = h, total + h
        if site.key != next(reversed(self.sites)):
            return y
        self._states.h_and_sum = None
        return y + reader.up((total + h) / len(self.sites))
