"""Necks that make one feature vector an image of the tokens that a backbone returns."""

from typing import Literal

from mmengine.model import BaseModule
from torch import Tensor

from gleam_mm.arguments import Checked
from gleam_mm.registry import MODELS


@MODELS.register_module()
class TokenPool(Checked, BaseModule):
    """Pools tokens whose channels come last, with or without the axes of a grid.

    Args:
        mode: ``'cls'`` takes the first token; ``'mean'`` averages all of them.

    Raises:
        ArgumentError: ``mode`` is something else.
    """

    def __init__(self, mode: Literal['cls', 'mean']) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Pools each feature of shape (B, ..., C) to (B, C)."""
        tokens = [feature.flatten(1, -2) for feature in inputs]
        if self.mode == 'cls':
            return tuple(feature[:, 0] for feature in tokens)
        return tuple(feature.mean(1) for feature in tokens)
