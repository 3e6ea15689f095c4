"""The bottleneck that adapters are made of."""

import math

from torch import nn


class Bottleneck(nn.Module):
    """Two Linears with biases, ``down`` (d -> r) and ``up`` (r -> d), which starts at zero.

    Args:
        width: Token width d.
        bottleneck: Inner width r.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
