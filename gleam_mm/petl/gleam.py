"""GLEAM: Global Share Local Transform MoE."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from gleam_mm.arguments import Positive, Probability, arguments_of
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.ladder import LadderMethod
from gleam_mm.petl.moe import ConvMoE
from gleam_mm.registry import MODELS


@MODELS.register_module()
class GLEAM(LadderMethod):
    r"""Global Share Local Transform MoE (ECAI 2025).

    .. math::
        y = W_0 x + \alpha B L_s \mathrm{MoE}(A x)

    A, B and the mixture of experts (equations 8 to 12, :class:`ConvMoE`) are shared by the whole
    network, A and B by a stage where widths differ; L_s, a tiny local transform, belongs to one
    weight matrix. The paper leaves the exact wiring to an appendix that is not public: this is a
    reconstruction, which meets all parameter counts that the paper prints. Bias-free, a ViT of
    width d and depth L gets :math:`2 d r + 12 L r^2 + 9 n r^2 + 2 r n` parameters. What the paper
    does not say and the counts do not tell are options. Their defaults are the shortest reading of
    the equations; what Conv-LoRA and FacT, whose parts GLEAM puts together, have beyond it, and
    what was found to train best, is in ``docs/gleam.md``.

    Args:
        rank: Inner width r: 4 (GLEAM-T), 8 (GLEAM-B) or 16 (GLEAM-L).
        alpha: Scale of the update, chosen by the paper from 0.01, 0.1, 1, 10, 100.
        sites: Roles to adapt. The paper's ablation adapts ``('qkv', 'proj')`` alone.
        moe: Whether to have the mixture of experts (the first row of the paper's Table 2 has not).
        local: Whether to have the local transforms.
        moe_side: Where the MoE stands. The paper does not say whether it mixes the r channels on
            the ``'narrow'`` side of L_s or each block of r channels on the ``'wide'`` side, which
            comes later where a site widens and earlier where it narrows; see
            :class:`LadderMethod`.
        local_init: How local transforms start: as the ``'identity'``, or ``'uniform'`` as in FacT.
        drop_rate: Dropout of what B reads: 0.1 in FacT.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of projections and local transforms, 1, 2, 4 or 8, instead of full
            precision; see :class:`~gleam_mm.petl.bits.Rounded`. The mixture keeps full precision.
        **mixture: Arguments of :class:`ConvMoE`: how many experts there are, how they are chosen,
            and how they start.

    Raises:
        ValueError: An argument is out of range, or a choice unknown.
    """

    @arguments_of(ConvMoE, 'channels')
    def __init__(
        self,
        rank: Positive = 16,
        alpha: float = 1.0,
        sites: Sequence[str] = LINEAR_ROLES,
        moe: bool = True,
        local: bool = True,
        moe_side: Literal['narrow', 'wide'] = 'narrow',
        local_init: Literal['identity', 'uniform'] = 'identity',
        drop_rate: Probability = 0.0,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
        **mixture: Any,
    ) -> None:
        mixer = ConvMoE(rank, **mixture) if moe else None
        super().__init__(
            rank, alpha, sites, local, mixer, moe_side, local_init, drop_rate, blocks, bits
        )

    def begin(self) -> None:
        """Forgets the balance losses of a pass whose losses nobody took."""
        if 'mixer' in self.shared:
            self.shared['mixer'].take_loss()

    def losses(self) -> dict[str, Tensor]:
        """The balance loss of this pass, where it has a weight."""
        balances = 'mixer' in self.shared and self.shared['mixer'].balance > 0
        return {'balance': self.shared['mixer'].take_loss()} if balances else {}
