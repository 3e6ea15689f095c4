"""Parameters of few bits: modules that compute with rounded matrices and train what is rounded."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.checkpoint.packing import decode, encode, forms_of, levels, scales_for, scales_of
from gleam_mm.petl.constants import constant
from gleam_mm.petl.lowrank import by_columns

Bits = Literal[1, 2, 4, 8]
"""Bits of a number: as many as divide a byte."""


class Rounded(nn.Module):
    r"""A module whose matrices may have few bits (Jie et al., ICCV 2023, "Bi-AdaptFormer").

    .. math::
        \hat W = \bar w + \sigma_w \, q \left( \frac{W - \bar w}{\sigma_w} \right)

    rounds all numbers of a matrix to the best :math:`2^b` levels of a normal variable, one bit to
    :math:`\bar w \pm 0.798 \, \sigma_w`. The paper minimises the squared error as well; the levels
    of its official code minimise the absolute one (0.674). The gradient goes straight through, to
    the latent W in full precision, which is what the optimizer, and a checkpoint to resume from,
    has. An adapter file has b bits a number and two floats a matrix.

    A matrix that comes out of a file is rounded already, and stays as it is bit for bit until it is
    changed, by a training in either mode or by hand: its scales tell, which are NaN else.
    """

    matrices: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that are rounded."""

    bits: Bits | None = None
    _levels: Tensor

    def round_to(self, bits: Bits | None) -> None:
        """Gives the module's matrices so many bits, or leaves them in full precision."""
        self.bits = bits
        if bits is None:
            return
        self.register_buffer('_levels', torch.tensor(levels(bits).tolist()), persistent=False)
        for name in self.matrices:
            self.register_buffer(f'{name}_scales', torch.full((2,), torch.nan))

    @constant
    def matrix(self, name: str) -> Tensor:
        """A matrix as the module computes with it."""
        latent = getattr(self, name)
        if self.bits is None:
            return latent
        given = getattr(self, f'{name}_scales')
        with torch.no_grad():
            if self.training:
                given.fill_(torch.nan)
                scales = scales_of(latent)
            else:
                scales = scales_for(latent, given, self._levels)
            rounded = decode(encode(latent, scales, self._levels), scales, self._levels)
        return rounded + (latent - latent.detach())


class RoundedLinear(Rounded, nn.Linear):
    """A Linear whose weight may have few bits; its bias has full precision."""

    matrices = ('weight',)

    def forward(self, x: Tensor) -> Tensor:
        """What a Linear computes, with the rounded weight."""
        return F.linear(x, by_columns(self.matrix('weight')), self.bias)


def packed_matrices(module: nn.Module) -> dict[str, dict]:
    """A module's matrices of few bits, by name: how a file packs them."""
    bits = {
        f'{path}.{name}' if path else name: part.bits
        for path, part in module.named_modules()
        if isinstance(part, Rounded) and part.bits is not None
        for name in part.matrices
    }
    return forms_of(bits, dict(module.named_parameters(remove_duplicate=False)))
