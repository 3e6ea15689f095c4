"""The bottleneck that adapters are made of, and a gate for what they add."""

import math

from torch import Tensor, nn

from gleam_mm.petl.bits import Bits, RoundedLinear


class Bottleneck(nn.Module):
    """Two Linears, ``down`` (d -> r) and ``up`` (r -> m), which starts at zero.

    Args:
        width: Width d that it reads.
        bottleneck: Inner width r.
        width_out: Width m that it writes; by default d.
        bits: Bits a weight, see :class:`~gleam_mm.petl.bits.Rounded`.
        bias: Whether they have biases.
        gate: Whether it has a ``gate``, for those who use one.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        width_out: int | None = None,
        bits: Bits | None = None,
        bias: bool = True,
        gate: bool = False,
    ) -> None:
        super().__init__()
        self.gate = TokenGate(width) if gate else None
        self.down = RoundedLinear(width, bottleneck, bias)
        self.up = RoundedLinear(bottleneck, width_out or width, bias)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        for linear in (self.down, self.up):
            if bias:
                nn.init.zeros_(linear.bias)
            linear.round_to(bits)


class TokenGate(nn.Linear):
    """The sigmoid of one number for each token (..., n), which starts at one half.

    Args:
        width: Width n of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers (..., 1) between zero and one."""
        return super().forward(x).sigmoid()
