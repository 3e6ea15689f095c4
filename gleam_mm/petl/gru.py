"""A gated recurrent unit."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GRUCell(nn.Module):
    """A gated recurrent unit, written down: ``torch.compile`` does not follow PyTorch's own.

    Its parameters are those of :class:`torch.nn.GRUCell`, in the same order.

    Args:
        width: Width d of what it reads.
        hidden: Width r of its state.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden, width))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """The next state (..., r) after input (..., d) and state."""
        reset_x, update_x, new_x = F.linear(x, self.weight_ih, self.bias_ih).chunk(3, -1)
        reset_h, update_h, new_h = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, -1)
        update = torch.sigmoid(update_x + update_h)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        return new + update * (h - new)
