"""DyT: tokens that need no FFN go without one."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gleam_mm.arguments import NonNegative, Positive, Probability
from gleam_mm.layouts import PassState, Site
from gleam_mm.petl.adaptformer import AdaptFormer
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.exporting import exporting
from gleam_mm.petl.probe import INPUT, Sum
from gleam_mm.registry import MODELS


class _Choices(PassState):
    """The choice at the FFN that is running, and in training those of all FFNs of the pass."""

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self.made: list[Tensor] = []


@MODELS.register_module()
class DyT(AdaptFormer):
    r"""Dynamic tuning (Zhao et al., NeurIPS 2024), in its form "MLP dispatch".

    .. math::
        x'' = x' + M \odot \mathrm{FFN}(\mathrm{LN}(x')) + s \, U \, \mathrm{ReLU}(D x' + b_D),
        \qquad M = [\mathrm{sigmoid}(w^T x' + c) > 1/2]

    a decision for each patch; class token, registers and prompts always pass. In training the logit
    has the difference of two Gumbel samples added and is divided by a temperature, the gradient
    goes straight through, and a loss draws the share of the chosen patches to a rate r:

    .. math::
        \lambda \left( (\bar M - r)^2 + \sum_{images, blocks} \max(0, 0.1 - \bar M_{bl}) \right)

    as in the official code. In evaluation the FFN computes the chosen tokens alone, and its cost
    falls with their number; under ``torch.compile``, which wants shapes that do not depend on
    values, all of them are computed and those left out multiplied by zero. The paper's second pass
    without gates, and the distillation from it, are not here. A block has d + 1 parameters more
    than AdaptFormer's.

    Args:
        bottleneck: Inner width r of the bottleneck.
        scale: Its factor s.
        drop_rate: Dropout behind its ReLU.
        rate: Share r of the patches that should pass.
        weight: Weight :math:`\lambda` of the loss.
        temperature: Temperature of the decisions in training.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, see :class:`~gleam_mm.petl.bits.Rounded`.
        bias: Whether the bottleneck has biases.
    """

    acts_at = {'before': ('norm',), 'compute': ('ffn',), 'adapt': ('block', 'fc2')}

    def __init__(
        self,
        bottleneck: Positive = 16,
        scale: float = 1.0,
        drop_rate: Probability = 0.1,
        rate: Probability = 0.5,
        weight: NonNegative = 2.0,
        temperature: NonNegative = 5.0,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(bottleneck, scale, drop_rate, blocks, bits, bias)
        self.roles = ('block', 'norm', 'ffn', 'fc2')
        self.rate = rate
        self.weight = weight
        self.temperature = temperature
        self._choices = _Choices()

    @property
    def reads_grid(self) -> bool:
        """It chooses among the patches."""
        return True

    def sums(self) -> Iterable[Sum]:
        """Beside those of AdaptFormer: an FFN is masked by what the last norm before it reads."""
        yield from super().sums()
        read = {site.block: site for site in self.sites.values() if site.role == 'norm'}
        for site in self.sites.values():
            if site.role == 'ffn':
                yield (read[site.block], INPUT), (site, INPUT)

    def build(self, sites: list[Site]) -> None:
        """Creates one bottleneck and one gate a block."""
        super().build(sites)
        for site in sites:
            if site.role == 'block':
                self.local[site.key].router = router = nn.Linear(site.width, 1)
                nn.init.trunc_normal_(router.weight, std=0.02)
                nn.init.zeros_(router.bias)

    def begin(self) -> None:
        """Forgets the choices of a pass whose losses nobody took."""
        self._choices.mask, self._choices.made = None, []

    def compute(self, site: Site, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """The forward method of an FFN, of the chosen tokens alone.

        Args:
            site: The FFN.
            x: The tokens (B, N, d).
            identity: What the FFN is to add to its output, if it does so by itself.
        """
        forward = partial(type(site.module).forward, site.module)
        options = {} if identity is None else {'identity': identity}
        self._choices.mask = mask = self._choose(site)
        if self.training or torch.compiler.is_compiling() or exporting():
            out = forward(x, **options)
        else:
            chosen = mask.squeeze(-1) > 0
            self._choices.mask = mask[chosen][None]
            rows = {name: value[chosen][None] for name, value in options.items()}
            out = torch.zeros_like(x) if identity is None else identity.clone()
            with self.layout.off_grid(int(chosen.sum())):
                out[chosen] = forward(x[chosen][None], **rows)[0].to(out.dtype)
        self._choices.mask = None
        return out

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Leaves tokens out behind the FFN, and adds the bottleneck behind the block."""
        if site.role == 'fc2':
            return y if self._choices.mask is None else y * self._choices.mask.to(y.dtype)
        return super().adapt(site, x, y)

    def losses(self) -> dict[str, Tensor]:
        """The loss that holds the rate, of a pass in training."""
        made, self._choices.made = self._choices.made, []
        if not made:
            return {}
        share = torch.cat([choices.flatten() for choices in made]).mean()
        few = sum((0.1 - choices.mean(1)).clamp(min=0).sum() for choices in made)
        return {'rate': self.weight * ((share - self.rate).square() + few)}

    def decide(self, logits: Tensor) -> Tensor:
        """What the FFN of each patch is multiplied by, of the shape of the logits (B, N)."""
        if not self.training:
            return (logits > 0).to(logits.dtype)
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        # The difference of two Gumbel samples is a logistic one.
        soft = torch.sigmoid((logits + uniform.logit()) / self.temperature)
        choices = (soft > 0.5).to(soft.dtype) + soft - soft.detach()
        self._choices.made.append(choices)
        return choices

    def _choose(self, site: Site) -> Tensor:
        """What the FFN of each token is multiplied by (B, N, 1); ones outside of the grid."""
        residual, _ = self._residuals.by_block[site.index]
        block = self.layout.block_of(site)
        grid = self.layout.grid(block)
        outside, inside = grid.split(residual)
        choices = self.decide(self.local[block.key].router(inside).float().squeeze(-1))
        ones = choices.new_ones(*outside.shape[:2], 1)
        return grid.join(ones, choices[..., None])
