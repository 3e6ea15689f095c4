"""Hydra: a parallel and a sequential low-rank branch at one Linear."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.registry import MODELS


class Branches(nn.Module):
    """The ``parallel`` branch (n -> r -> m) of a Linear and the ``sequential`` one (m -> r -> m).

    Args:
        in_features: Width n that the Linear reads.
        out_features: Width m that it writes.
        rank: Inner width r.
        bits: Bits a weight, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, bits: Bits | None = None
    ) -> None:
        super().__init__()
        self.parallel = Bottleneck(in_features, rank, out_features, bits)
        self.sequential = Bottleneck(out_features, rank, bits=bits)
        for branch in (self.parallel, self.sequential):
            nn.init.xavier_uniform_(branch.down.weight)


@MODELS.register_module()
class Hydra(PETLMethod):
    r"""Multi-head low-rank adaptation (Kim et al., 2023).

    .. math::
        h = y + s \, (U_p (D_p x + b_p) + b'_p) + s \, (U_s (D_s y + b_s) + b'_s)

    with x the input and y the output of the frozen Linear: new features beside the pretrained ones,
    and combinations of these. U and all biases start at zero. Nothing but dropout stands between D
    and U, so that both branches fold:

    .. math::
        W' = W + s \, (U_p D_p + U_s D_s W), \quad
        b' = b + s \, (U_p b_p + b'_p + U_s (D_s b + b_s) + b'_s)

    The official code's merge multiplies the weight of fc2 where that of proj belongs; this follows
    the equations. A site has :math:`r (n + 3 m) + 2 r + 2 m` parameters.

    Args:
        rank: Inner width r of either branch.
        scale: Factor s, chosen for each task.
        drop_rate: Dropout between D and U.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
    """

    def __init__(
        self,
        rank: Positive = 2,
        scale: float = 1.0,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = ('proj', 'fc2'),
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.rank = rank
        self.scale = scale
        self.drop_rate = drop_rate
        self.bits = bits

    def build(self, sites: list[Site]) -> None:
        """Creates two branches a site."""
        for site in sites:
            width_in, width_out = site.in_features, site.out_features
            self.local[site.key] = Branches(width_in, width_out, self.rank, self.bits)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds both branches to the frozen Linear's output."""
        own = self.local[site.key]
        update = self._branch(own.parallel, x) + self._branch(own.sequential, y)
        return torch.add(y, update, alpha=self.scale)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Folds both branches into the weight and the bias."""
        parallel, sequential = self.local[site.key].parallel, self.local[site.key].sequential
        update = parallel.up.matrix('weight') @ parallel.down.matrix('weight')
        update = update + sequential.up.matrix('weight') @ (
            sequential.down.matrix('weight') @ weight
        )
        shift = parallel.up(parallel.down.bias)
        shift = shift + sequential.up(
            sequential.down.bias if bias is None else sequential.down(bias)
        )
        shift = self.scale * shift
        return weight + self.scale * update, shift if bias is None else bias + shift

    def _branch(self, branch: Bottleneck, x: Tensor) -> Tensor:
        return branch.up(F.dropout(branch.down(x), self.drop_rate, self.training))
