"""GLEAM: Global Share Local Transform MoE."""

from collections.abc import Sequence

from gleam_mm.petl.base import LINEAR_ROLES, check_rank
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
    does not say and the counts do not tell are options: ``scales``, ``gate``, ``moe_side`` and
    ``expert_init``.

    Args:
        rank: Inner width r: 4 (GLEAM-T), 8 (GLEAM-B) or 16 (GLEAM-L).
        alpha: Scale of the update, chosen by the paper from 0.01, 0.1, 1, 10, 100.
        num_experts: Number n of experts.
        top_k: How many experts k serve an image or a token, chosen by the paper from 1, 2, 3. With
            1 the gate learns nothing, see :class:`ConvMoE`.
        scales: Scales of the experts, "different ratios" in the paper. Defaults to 1, 2, ..., n.
        sites: Roles to adapt. The paper's ablation adapts ``('qkv', 'proj')`` alone.
        moe: Whether to have the mixture of experts (the first row of the paper's Table 2 has not).
        local: Whether to have the local transforms.
        gate: What the gate decides for. The paper says that experts are selected "for each input",
            which may be an ``'image'`` (where attention is windowed, a window), by the mean of its
            tokens, or a ``'token'``, by its own features.
        moe_side: Where the MoE stands. The paper does not say whether it mixes the r channels on
            the ``'narrow'`` side of L_s or each block of r channels on the ``'wide'`` side, which
            comes later where a site widens and earlier where it narrows; see
            :class:`LadderMethod`.
        expert_init: How experts start, of which the paper says nothing: ``'kaiming'`` as PyTorch's
            convolutions do, or ``'identity'``, with which GLEAM starts where it would be without
            its mixture.

    Raises:
        ValueError: ``rank``, ``num_experts``, ``top_k`` or ``scales`` is out of range, or ``gate``,
            ``moe_side`` or ``expert_init`` is unknown.
    """

    def __init__(
        self,
        rank: int = 16,
        alpha: float = 1.0,
        num_experts: int = 4,
        top_k: int = 2,
        scales: Sequence[int] | None = None,
        sites: Sequence[str] = LINEAR_ROLES,
        moe: bool = True,
        local: bool = True,
        gate: str = 'image',
        moe_side: str = 'narrow',
        expert_init: str = 'kaiming',
    ) -> None:
        mixer = (
            ConvMoE(check_rank(rank), num_experts, top_k, scales, gate, expert_init)
            if moe
            else None
        )
        super().__init__(rank, alpha, sites, local, mixer, moe_side)
