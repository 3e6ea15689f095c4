"""CoDA: a fixed share of the tokens goes through the FFN."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gleam_mm.arguments import Positive, Probability
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.dyt import DyT
from gleam_mm.registry import MODELS


@MODELS.register_module()
class CoDA(DyT):
    r"""Conditional adapters (Lei et al., NeurIPS 2023), in front of the FFNs.

    As :class:`~gleam_mm.petl.DyT`, but of n patches the k = r n with the highest scores pass,
    rounded up, so that the cost is known beforehand and no loss has to hold a rate. What the FFN
    gives is multiplied by the soft top-k of the scores:

    .. math::
        \lambda = \arg\max_{0 \le \lambda \le 1, \, \sum \lambda = k}
            \, s^T \lambda + \epsilon H(\lambda)

    through which the gate learns. In the paper the tokens skip the attention as well, which here
    they keep. Where a class token is pooled, the last block's gate has no effect on it, and learns
    nothing; leave that block out with ``blocks``. A block has as many parameters as in DyT.

    Args:
        bottleneck: Inner width r of the bottleneck.
        scale: Its factor.
        drop_rate: Dropout behind its ReLU.
        rate: Share r of the patches that pass.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, see :class:`~gleam_mm.petl.bits.Rounded`.
        bias: Whether the bottleneck has biases.
    """

    def __init__(
        self,
        bottleneck: Positive = 16,
        scale: float = 1.0,
        drop_rate: Probability = 0.1,
        rate: Probability = 0.25,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(bottleneck, scale, drop_rate, rate, blocks=blocks, bits=bits, bias=bias)

    def decide(self, logits: Tensor) -> Tensor:
        """The soft top-k of the scores (B, N), zero for all but the k highest."""
        number = max(1, math.ceil(self.rate * logits.shape[1]))
        soft = soft_top_k(logits, number)
        chosen = torch.zeros_like(soft).scatter(1, logits.topk(number, dim=1).indices, 1.0)
        return soft * chosen


def soft_top_k(scores: Tensor, number: int, steps: int = 20) -> Tensor:
    """The soft top-k of scores (B, N), at epsilon one.

    By coordinate ascent in the dual, whose epsilon falls from four to one, as in the paper.
    """
    a, b = torch.zeros_like(scores[:, :1]), torch.zeros_like(scores)
    epsilon = 4.0
    for _ in range(steps):
        a = epsilon * (math.log(number) - torch.logsumexp((scores + b) / epsilon, 1, keepdim=True))
        b = (-scores - a).clamp(max=0)
        epsilon = max(0.7 * epsilon, 1.0)
    return torch.exp(scores + a + b)
