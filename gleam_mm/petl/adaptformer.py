"""AdaptFormer: bottlenecks beside the FFNs."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Layout, PassState, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.petl.probe import INPUT, OUTPUT, Sum
from gleam_mm.registry import MODELS


class _Residuals(PassState):
    """By block, what the norm before its FFN read, and whether autograd saw it."""

    def __init__(self) -> None:
        self.by_block: dict[int, tuple[Tensor, bool]] = {}


@MODELS.register_module()
class AdaptFormer(PETLMethod):
    r"""AdaptFormer (Chen et al., NeurIPS 2022).

    .. math::
        x'' = x' + \mathrm{FFN}(\mathrm{LN}(x')) + s \, (U \, \mathrm{ReLU}(D x' + b_D) + b_U)

    with x' the residual stream between attention and FFN. As in the official code the bottleneck
    reads x' without a norm, has dropout behind its ReLU and is not under drop path. U starts at
    zero. A block has :math:`2 d r + r + d` parameters, without biases :math:`2 d r`; with a
    ``gate``, see :class:`~gleam_mm.petl.LoRA`, d + 1 more.

    Args:
        bottleneck: Inner width r.
        scale: Factor s; on VTAB-1K the official code chooses it for each task, 1 for ten of the 19.
        drop_rate: Dropout behind the ReLU.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
        bias: Whether the bottleneck has biases.
        gate: Whether what it adds to a token is gated.

    Raises:
        ValueError: ``bits`` is out of range.
    """

    obstacle = (
        'its bottleneck reads the residual stream beside the FFN and has a ReLU inside, which no '
        'weight of a Linear can hold'
    )

    acts_at = {'before': ('norm',), 'adapt': ('block',)}

    def __init__(
        self,
        bottleneck: Positive = 8,
        scale: float = 0.1,
        drop_rate: Probability = 0.1,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
        bias: bool = True,
        gate: bool = False,
    ) -> None:
        super().__init__(('block', 'norm'), blocks)
        self.gate = gate
        self.bits = bits
        self.bias = bias
        self.bottleneck = bottleneck
        self.scale = scale
        self.drop_rate = drop_rate
        self._residuals = _Residuals()

    def select(self, layout: Layout) -> list[Site]:
        """The blocks, and their norms.

        Raises:
            ValueError: The norms do not read the residual stream, or a block has none.
        """
        if not layout.pre_norm:
            raise ValueError(
                f'{self.title} reads the residual stream at the norm in front of an FFN, and '
                f'{type(layout.backbone).__name__} has its norms behind: use AdapterPlus'
            )
        sites = super().select(layout)
        normed = {site.block for site in sites if site.role == 'norm'}
        for site in sites:
            if site.role == 'block' and site.block not in normed:
                raise ValueError(
                    f'{self.title} reads the residual stream at the norm in front of an FFN, and '
                    f'{site.name!r} of {type(layout.backbone).__name__} has none that is its own'
                )
        return sites

    def sums(self) -> Iterable[Sum]:
        """What the last norm of a block reads goes to the bottleneck, beside the block's output."""
        read = {site.block: site for site in self.sites.values() if site.role == 'norm'}
        return [
            ((read[site.block], INPUT), (site, OUTPUT))
            for site in self.sites.values()
            if site.role == 'block'
        ]

    def build(self, sites: list[Site]) -> None:
        """Creates one bottleneck a block."""
        for site in sites:
            if site.role == 'block':
                self.local[site.key] = Bottleneck(
                    site.width, self.bottleneck, bits=self.bits, bias=self.bias, gate=self.gate
                )

    def before(self, site: Site, x: Tensor) -> Tensor:
        """Keeps the residual stream where a block reads it for its FFN, at its last norm."""
        if site.block is not None:  # the norm behind all blocks, after which nobody asks
            self._residuals.by_block[site.block] = x, torch.is_grad_enabled()
        return x

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the bottleneck makes of the residual stream to the block's output.

        Raises:
            RuntimeError: The block hides its inside from autograd.
        """
        residual, recorded = self._residuals.by_block.pop(site.index)
        if torch.is_grad_enabled() and not recorded:
            raise RuntimeError(
                f'AdaptFormer cannot be trained with checkpointing inside of {site.name!r}, which '
                'recomputes what it reads there: set with_cp=False in the backbone'
            )
        bypass = self.bypass(self.local[site.key], residual)
        return torch.add(y, bypass.view_as(y), alpha=self.scale)

    def bypass(self, own: Bottleneck, x: Tensor) -> Tensor:
        """What a bottleneck makes of the residual stream."""
        out = own.up(F.dropout(F.relu(own.down(x)), self.drop_rate, self.training))
        return out if own.gate is None else out * own.gate(x)
