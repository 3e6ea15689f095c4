"""DyLoRA: a LoRA that is trained at all ranks at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.lora import LoRA
from gleam_mm.petl.step_draws import next_step
from gleam_mm.registry import MODELS


@MODELS.register_module()
class DyLoRA(LoRA):
    r"""Dynamic LoRA (Valipour et al., EACL 2023).

    .. math::
        h = W_0 x + \tfrac{\alpha}{b} B_{:, :b} A_{:b} x

    Each training step draws one b from 1 to r, so that the first ranks learn to do without the
    others: one training gives a LoRA of every rank up to r. The draw depends on ``seed`` and the
    number of the step alone: it is the same in every process, and goes on where a training resumes.

    Args:
        rank: The highest rank r.
        alpha: The update is scaled by ``alpha / b``.
        drop_rate: Dropout of the input of A.
        sites: Roles to adapt.
        seed: Seed of the draws.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Attributes:
        step (Tensor): A buffer that counts training steps.
    """

    counters = ('step',)

    def __init__(
        self,
        rank: Positive = 8,
        alpha: float = 8.0,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = ('qkv',),
        seed: int = 0,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(rank, alpha, drop_rate, sites, blocks=blocks)
        self.seed = seed
        self.served = self._drawn = self.rank
        self.register_buffer('step', torch.zeros((), dtype=torch.long))

    def serve(self, rank: int) -> None:
        """Sets the rank of evaluation and of merging, the highest by default.

        Raises:
            ValueError: It is none of 1 to r.
        """
        if not 1 <= rank <= self.rank:
            raise ValueError(f'rank={rank}: this DyLoRA was trained at ranks 1 to {self.rank}')
        self.served = rank

    def begin(self) -> None:
        """Draws the rank of a training step."""
        if self.training:
            self._drawn = next_step(self.seed, self.step).randint(1, self.rank)

    def factors(self, site: Site, training: bool = False) -> tuple[Tensor, Tensor]:
        """The first rows of A and columns of B."""
        pair, rank = self.local[site.key], self._drawn if training else self.served
        return pair.down[:rank], pair.up[:, :rank] * (self.rank / rank)
