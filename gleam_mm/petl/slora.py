"""SLoRA: a LoRA whose two matrices are shared by the whole network."""

from collections.abc import Sequence

from gleam_mm.arguments import Positive
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.ladder import LadderMethod
from gleam_mm.registry import MODELS


@MODELS.register_module()
class SLoRA(LadderMethod):
    r"""Share LoRA, the first rung of the ladder (GLEAM, equation 7): :math:`h = W_0 x + B' A' x`.

    B' and A' are global; in Swin each stage has its pair. A site of several blocks reads the sum of
    A' over its input blocks and writes B' to each of its output blocks. A ViT of width d gets
    :math:`2 d r` parameters.

    Args:
        rank: Inner width r.
        alpha: Scale of the update.
        sites: Roles to adapt. The paper's experiment adapts ``('proj',)`` alone.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
    """

    def __init__(
        self,
        rank: Positive = 8,
        alpha: float = 1.0,
        sites: Sequence[str] = LINEAR_ROLES,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
    ) -> None:
        super().__init__(rank, alpha, sites, local=False, blocks=blocks, bits=bits)
