"""AdaptFormer: bottlenecks beside the FFNs."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.petl.base import Handle, PETLMethod, check_rank
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.petl.layouts import Site
from gleam_mm.registry import MODELS


@MODELS.register_module()
class AdaptFormer(PETLMethod):
    r"""AdaptFormer (Chen et al., NeurIPS 2022).

    .. math::
        x'' = x' + \mathrm{FFN}(\mathrm{LN}(x')) + s \, (U \, \mathrm{ReLU}(D x' + b_D) + b_U)

    with x' the residual stream between attention and FFN. As in the official code the bottleneck
    reads x' without a norm, has dropout behind its ReLU and is not under drop path. U starts at
    zero. A block has :math:`2 d r + r + d` parameters.

    Args:
        bottleneck: Inner width r.
        scale: Factor s.
        drop_rate: Dropout behind the ReLU.

    Raises:
        ValueError: ``bottleneck`` is out of range.
    """

    obstacle = (
        'its bottleneck reads the residual stream beside the FFN and has a ReLU inside, which no '
        'weight of a Linear can hold'
    )

    def __init__(self, bottleneck: int = 8, scale: float = 0.1, drop_rate: float = 0.1) -> None:
        super().__init__(sites=('block',))
        self.bottleneck = check_rank(bottleneck, 'bottleneck')
        self.scale = scale
        self.drop_rate = drop_rate
        # What the norm before the FFN read, by block, until the block is done; and whether
        # autograd saw it.
        self._residuals: dict[int, tuple[Tensor, bool]] = {}

    def build(self, sites: list[Site]) -> None:
        """Creates one bottleneck a block."""
        for site in sites:
            self.local[site.key] = Bottleneck(site.width, self.bottleneck)

    def track(self) -> list[Handle]:
        """Follows the residual stream where a block reads it for its FFN, at its last norm."""
        norms = {site.block: site for site in self.layout.sites(('norm',))}
        norms.pop(None, None)
        return [
            site.module.register_forward_pre_hook(partial(self._remember, block))
            for block, site in norms.items()
        ]

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the bottleneck makes of the residual stream to the block's output.

        Raises:
            RuntimeError: The block hides its inside from autograd.
        """
        residual, recorded = self._residuals.pop(site.block)
        if torch.is_grad_enabled() and not recorded:
            raise RuntimeError(
                f'AdaptFormer cannot be trained with checkpointing inside of {site.name!r}, which '
                'recomputes what it reads there: set with_cp=False in the backbone'
            )
        own = self.local[site.key]
        z = F.dropout(F.relu(own.down(residual)), self.drop_rate, self.training)
        return torch.add(y, own.up(z).view_as(y), alpha=self.scale)

    def _remember(self, block: int, module: nn.Module, args: tuple) -> None:
        self._residuals[block] = args[0], torch.is_grad_enabled()
