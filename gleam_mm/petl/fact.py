"""FacT: factor-tuning of a whole vision transformer."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.bits import Bits, Rounded
from gleam_mm.petl.ladder import LadderMethod
from gleam_mm.registry import MODELS


class Core(Rounded):
    """The core tensor of a Tucker decomposition, indexed (channel out, channel in, k).

    Args:
        rank: Inner width r of all three dimensions.
        bits: Bits a number, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    matrices = ('weight',)

    def __init__(self, rank: int, bits: Bits | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rank, rank, rank))
        nn.init.xavier_uniform_(self.weight)
        self.round_to(bits)


class Columns(Rounded):
    """A site's columns of the third factor, indexed (block out, block in, k).

    Args:
        blocks_in: Number of d-wide blocks that the site reads.
        blocks_out: Number of d-wide blocks that the site writes.
        rank: Inner width r.
        bits: Bits a number, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    matrices = ('weight',)

    def __init__(
        self, blocks_in: int, blocks_out: int, rank: int, bits: Bits | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks_out, blocks_in, rank))
        self.round_to(bits)

    def transform(self) -> Tensor:
        """The columns."""
        return self.matrix('weight')


@MODELS.register_module()
class FacT(LadderMethod):
    r"""Factor-tuning (Jie and Deng, AAAI 2023).

    The updates of all d x d matrices of the network form one tensor, which is factorised. Both
    forms are the ladder's second rung, :math:`y = W_0 x + \alpha B L_s A x` with A and B shared.
    They differ in what a site's :math:`L_s` is made of.

    FacT-TT, a tensor train: :math:`L_s` is free. A ViT of width d and depth L gets
    :math:`2 d r + 12 L r^2` parameters.

    FacT-TK, a Tucker decomposition: :math:`L_s = \sum_k P_{ks} C_k` combines the r slices of a core
    C that all sites share; the site owns r numbers a matrix, its column of the factor P. A ViT gets
    :math:`2 d r + 12 L r + r^3` parameters.

    In the official code of FacT-TK the r channels and the four blocks of fc1 and fc2 lie in memory
    in another order: its :math:`r \times r \times 4` slice is reshaped to r x 4 r as it is, which
    mixes channels and blocks. As all of these numbers are trained alike it is the same method, but
    its checkpoints do not carry over.

    In Swin each stage has a tensor of its own. The official code starts FacT-TT's local transforms
    ``'uniform'`` and has a ``drop_rate`` of 0.1.

    Args:
        rank: Inner width r.
        alpha: Scale of the update.
        sites: Roles to adapt.
        form: ``'tt'`` or ``'tk'``.
        local_init: How FacT-TT's local transforms start: as the ``'identity'``, or ``'uniform'``.
            FacT-TK's factors start as in the official code.
        drop_rate: Dropout of what B reads.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of all factors, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.

    Raises:
        ValueError: ``bits`` is out of range.
    """

    def __init__(
        self,
        rank: Positive = 16,
        alpha: float = 1.0,
        sites: Sequence[str] = LINEAR_ROLES,
        form: Literal['tt', 'tk'] = 'tt',
        local_init: Literal['identity', 'uniform'] = 'identity',
        drop_rate: Probability = 0.0,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
    ) -> None:
        super().__init__(
            rank, alpha, sites, local_init=local_init, drop_rate=drop_rate, blocks=blocks, bits=bits
        )
        self.form = form

    def build(self, sites: list[Site]) -> None:
        """Creates the factors; for the Tucker form, a core a stage as well."""
        super().build(sites)
        if self.form == 'tt':
            return
        matrices: dict[str, list[Tensor]] = {}
        for site in sites:
            matrices.setdefault(str(site.stage), []).append(self.local[site.key].weight)
        self.shared['cores'] = nn.ModuleDict(
            {stage: Core(self.rank, self.bits) for stage in matrices}
        )
        for columns in matrices.values():
            # As Xavier's initialisation of the whole factor P, r x (number of matrices).
            number = sum(weight.shape[:2].numel() for weight in columns)
            bound = math.sqrt(6 / (self.rank + number))
            for weight in columns:
                nn.init.uniform_(weight, -bound, bound)

    def build_local(self, site: Site) -> nn.Module:
        """Creates a site's transform or its columns of P."""
        if self.form == 'tt':
            return super().build_local(site)
        return Columns(site.blocks_in, site.blocks_out, self.rank, self.bits)

    def local_weight(self, site: Site) -> Tensor:
        """A site's transform: the core's slices, combined by the site's columns of P."""
        weight = super().local_weight(site)
        if self.form == 'tt':
            return weight
        core = self.shared['cores'][str(site.stage)].matrix('weight')
        return torch.einsum('oik,abk->oiab', weight, core)
