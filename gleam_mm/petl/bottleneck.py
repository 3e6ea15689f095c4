"""The bottleneck that adapters are made of."""

import math

from torch import nn

from gleam_mm.petl.bits import Bits, RoundedLinear


class Bottleneck(nn.Module):
    """Two Linears, ``down`` (d -> r) and ``up`` (r -> m), which starts at zero.

    Args:
        width: Width d that it reads.
        bottleneck: Inner width r.
        width_out: Width m that it writes; by default d.
        bits: Bits a weight, see :class:`~gleam_mm.petl.bits.Rounded`.
        bias: Whether they have biases.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        width_out: int | None = None,
        bits: Bits | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.down = RoundedLinear(width, bottleneck, bias)
        self.up = RoundedLinear(bottleneck, width_out or width, bias)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        for linear in (self.down, self.up):
            if bias:
                nn.init.zeros_(linear.bias)
            linear.round_to(bits)
