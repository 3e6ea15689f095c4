"""E2VPT: prompts among keys and values beside those of the input, pruned and trained again."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gleam_mm.arguments import NonNegative, Positive, Probability
from gleam_mm.layouts import Layout, Site
from gleam_mm.petl.base import LossOfBatch
from gleam_mm.petl.prefix import Prefix, require_plain
from gleam_mm.petl.rehearsal import rehearsed
from gleam_mm.petl.vpt import VPT
from gleam_mm.registry import MODELS


@MODELS.register_module()
class E2VPT(VPT):
    r"""Effective and efficient visual prompt tuning (Han et al., ICCV 2023).

    Deep prompts P (:class:`~gleam_mm.petl.VPT`), and p' learned numbers a head which stand among
    its keys and among its values, as one tensor for both
    (:class:`~gleam_mm.petl.PrefixTuning` with ``shared=True``): :math:`L (p + p') d` parameters.

    Pruning leaves whole prompts out, and then pieces of those that remain, the same in every block:
    :math:`P \odot \rho` with :math:`\rho` one for what stays. :meth:`calibrate` chooses it. After
    a short training of the prompts, importance is :math:`|\partial L / \partial \rho|`, summed over
    batches; the least important go, and the prompts are rewound to where they started. The paper
    trains to the end first, masks and head with it, and chooses both shares for each task from 10
    to 90 %. A piece is a run of channels, as the paper says; in the official code every 16th.

    Args:
        num_prompts: The number p of prompts in front of every block.
        num_keys: The number p' of prompts among keys and values.
        drop_rate: Dropout of all of them.
        prune_prompts: Share of the prompts to leave out.
        prune_pieces: Share of the pieces of the others to leave out.
        pieces: Number of pieces of a prompt, a divisor of the token width.
        steps: Steps of the training before the pruning.
        lr: Its learning rate.
        blocks: Transformer blocks that have prompts, as in :class:`~gleam_mm.petl.PETLMethod`.

    Attributes:
        kept (Tensor): The buffer :math:`\rho`, of shape (p, pieces).

    Raises:
        ValueError: ``pieces`` divides no token width.
    """

    kept: Tensor

    def __init__(
        self,
        num_prompts: Positive = 10,
        num_keys: Positive = 5,
        drop_rate: Probability = 0.1,
        prune_prompts: Probability = 0.0,
        prune_pieces: Probability = 0.0,
        pieces: Positive = 16,
        steps: Positive = 50,
        lr: NonNegative = 1e-3,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(num_prompts, drop_rate=drop_rate, blocks=blocks)
        self.num_keys = num_keys
        self.prune_prompts = prune_prompts
        self.prune_pieces = prune_pieces
        self.steps = steps
        self.lr = lr
        self.register_buffer('kept', torch.ones(num_prompts, pieces))

    def select(self, layout: Layout) -> list[Site]:
        """The blocks and their attention."""
        sites = super().select(layout)
        return sites if layout.windowed else [*sites, *layout.sites(('attn',), self.blocks)]

    def build(self, sites: list[Site]) -> None:
        """Creates the prompts of every block and of its attention."""
        super().build(sites)
        for site in sites:
            if site.width % self.kept.shape[1]:
                raise ValueError(
                    f'pieces={self.kept.shape[1]} does not divide the token width {site.width} of '
                    f'{site.name!r}'
                )
            if site.role == 'attn':
                heads = self.layout.attention(site).num_heads
                self.local[site.key] = Prefix(self.num_keys, heads, site.width // heads, True)

    def prompts(self, site: Site) -> Tensor:
        """The prompts that enter at a block, without what is pruned."""
        kept = self.kept.repeat_interleave(site.width // self.kept.shape[1], dim=1)
        return super().prompts(site) * kept

    def compute(
        self, site: Site, x: Tensor, mask: Tensor | None = None, **options: object
    ) -> Tensor:
        """The forward method of an attention, with the prompts among keys and values."""
        if self.layout.windowed:
            return super().compute(site, x, mask)
        require_plain(site, options)
        attention = self.layout.attention(site)
        return self.local[site.key].attend(attention, x, mask, self._drop_rate())

    def extend(self, site: Site, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a window attention, with the learned ones in front."""
        return self.local[site.key].extend(keys, values, self._drop_rate())

    def calibrate(self, batches: Iterable[LossOfBatch]) -> None:
        """Chooses what is pruned."""
        if not (self.prune_prompts or self.prune_pieces):
            return
        batches = list(batches)
        self.kept.fill_(1).requires_grad_()
        gradients: list[Tensor] = []
        try:
            with rehearsed(list(self.parameters()), batches, self.steps, self.lr):
                for loss_of_batch in batches:
                    with torch.enable_grad():
                        loss = loss_of_batch()
                    gradients += torch.autograd.grad(loss, [self.kept])
        finally:
            self.kept.requires_grad_(False)
        total = torch.stack(gradients)
        _drop_least(self.kept, total.sum(2).abs().sum(0), self.prune_prompts)
        left = self.kept[:, 0] > 0
        pieces = self.kept[left].flatten()
        _drop_least(pieces, total.abs().sum(0)[left].flatten(), self.prune_pieces)
        self.kept[left] = pieces.unflatten(0, (-1, self.kept.shape[1]))

    def _drop_rate(self) -> float:
        return self.drop_rate if self.training else 0.0


def _drop_least(kept: Tensor, importance: Tensor, share: float) -> None:
    """Sets the least important entries of the first dimension to zero, all but one at most."""
    number = min(round(share * len(importance)), len(importance) - 1)
    kept[importance.argsort()[:number]] = 0
