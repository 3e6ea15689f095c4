"""FacT: factor-tuning of a whole vision transformer."""

from collections.abc import Sequence

from gleam_mm.petl.base import LINEAR_ROLES
from gleam_mm.petl.ladder import LadderMethod
from gleam_mm.registry import MODELS


@MODELS.register_module()
class FacT(LadderMethod):
    r"""Factor-tuning in its tensor-train form, FacT-TT (Jie and Deng, AAAI 2023).

    The updates of all d x d matrices of the network form one tensor, factorised as
    :math:`\Delta W_s = \alpha U \Sigma_s V^\top` with U and V shared. That is the ladder's second
    rung, :math:`y = W_0 x + \alpha B L_s A x`. A ViT of width d and depth L gets
    :math:`2 d r + 12 L r^2` parameters.

    Args:
        rank: Inner width r.
        alpha: Scale of the update.
        sites: Roles to adapt.
    """

    def __init__(
        self, rank: int = 16, alpha: float = 1.0, sites: Sequence[str] = LINEAR_ROLES
    ) -> None:
        super().__init__(rank, alpha, sites, local=True)
