"""A head of cosines, some of whose classes may rest."""

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.registry import MODELS


class CosineLinear(nn.Module):
    """Scaled cosines between features and the weight of each class."""

    def __init__(self, in_channels: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of features (B, C)."""
        return self.scale * F.linear(F.normalize(x), F.normalize(self.weight))


@MODELS.register_module()
class CosineClsHead(ClsHead):
    """A classifier by cosines, of whose classes some may be active for a while.

    Others then have logits of minus infinity: they are neither told nor part of the loss. So a head
    that has all classes from the beginning learns them session by session.

    Args:
        num_classes (int): The number of classes.
        in_channels (int): The width of the features.
        scale (float): The factor of the cosines.
        **kwargs: As of ``mmpretrain.models.ClsHead``: ``loss``, ``topk``, ``cal_acc``.

    Attributes:
        active (Sequence[int] | None): The active classes; None for all.
    """

    def __init__(
        self, num_classes: int, in_channels: int, scale: float = 20.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.fc = CosineLinear(in_channels, num_classes, scale)
        self.active: Sequence[int] | None = None

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits (B, K) of the last of the features."""
        logits = self.fc(self.pre_logits(feats))
        if self.active is None:
            return logits
        resting = torch.ones(self.num_classes, dtype=torch.bool, device=logits.device)
        resting[list(self.active)] = False
        return logits.masked_fill(resting, -torch.inf)
