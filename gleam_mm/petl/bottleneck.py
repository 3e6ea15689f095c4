"""The bottleneck that adapters are made of."""

import math

from torch import nn


class Bottleneck(nn.Module):
    """Two Linears with biases, ``down`` (d -> r) and ``up`` (r -> m), which starts at zero.

    Args:
        width: Width d that it reads.
        bottleneck: Inner width r.
        width_out: Width m that it writes; by default d.
    """

    def __init__(self, width: int, bottleneck: int, width_out: int | None = None) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width_out or width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
