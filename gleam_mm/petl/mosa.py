"""MoSA: the parts of an adapter are trained one at a time, and work together."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.adaptformer import AdaptFormer
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.petl.step_draws import next_step
from gleam_mm.registry import MODELS


@MODELS.register_module()
class MoSA(AdaptFormer):
    r"""Mixture of sparse adapters (Zhang et al., 2023).

    AdaptFormer's bottleneck, whose matrices are cut at random into E parts that do not overlap.
    Every step draws one part of D and one of U, and trains these numbers alone; all of them are
    used, in training as afterwards:

    .. math::
        \hat W = m_e \odot W + (1 - m_e) \odot \mathrm{stop}(W)

    so that cost, file and evaluation are a plain adapter's. Biases are trained in every step. The
    parts and the draws depend on ``seed`` and the number of the step alone. In the official code
    the stored parts are copies, which a merge of its own puts together.

    Args:
        bottleneck: Inner width r.
        experts: Number E of parts.
        scale: Factor of the bottleneck.
        drop_rate: Dropout behind its ReLU.
        seed: Seed of the parts and of the draws.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Attributes:
        step (Tensor): A buffer that counts training steps.
    """

    counters = ('step',)

    def __init__(
        self,
        bottleneck: Positive = 64,
        experts: Positive = 4,
        scale: float = 0.1,
        drop_rate: Probability = 0.1,
        seed: int = 0,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(bottleneck, scale, drop_rate, blocks)
        self.experts = experts
        self.seed = seed
        self._drawn = 0, 0
        self.register_buffer('step', torch.zeros((), dtype=torch.long))

    def build(self, sites: list[Site]) -> None:
        """Creates the bottlenecks and the parts that each of their numbers belongs to."""
        super().build(sites)
        generator = torch.Generator().manual_seed(self.seed)
        for own in self.local.values():
            for linear in (own.down, own.up):
                number = linear.weight.numel()
                parts = torch.randperm(number, generator=generator, device='cpu') % self.experts
                parts = parts.view(linear.weight.shape).to(linear.weight.device)
                linear.register_buffer('parts', parts, persistent=False)

    def begin(self) -> None:
        """Draws the parts of a training step."""
        if self.training:
            generator = next_step(self.seed, self.step)
            self._drawn = generator.randrange(self.experts), generator.randrange(self.experts)

    def bypass(self, own: Bottleneck, x: Tensor) -> Tensor:
        """What the bottleneck makes of the residual stream; its drawn parts have gradients."""
        if not self.training:
            return super().bypass(own, x)
        down, up = (
            torch.where(linear.get_buffer('parts') == part, linear.weight, linear.weight.detach())
            for linear, part in zip((own.down, own.up), self._drawn, strict=True)
        )
        z = F.dropout(F.relu(F.linear(x, down, own.down.bias)), self.drop_rate)
        return F.linear(z, up, own.up.bias)
