"""Sums of Kronecker products: MoKA's gate, and SoKA's start at the weight's own."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.constants import constant
from gleam_mm.registry import MODELS


class KroneckerSum(nn.Module):
    """Factors ``left`` (K, a, a) and ``right`` (K, m / a, n / a) of a matrix (m, n).

    Args:
        number: Number K of products.
        size: Side a of the left factors.
        rows: m.
        columns: n.
        gated: Whether the products have ``logits``, of a softmax.
    """

    first_left: Tensor | None
    first_right: Tensor | None

    def __init__(self, number: int, size: int, rows: int, columns: int, gated: bool) -> None:
        super().__init__()
        bound = math.sqrt(3 / columns)
        self.left = nn.Parameter(torch.empty(number, size, size).uniform_(-bound, bound))
        self.right = nn.Parameter(torch.zeros(number, rows // size, columns // size))
        self.logits = nn.Parameter(torch.zeros(number)) if gated else None
        self.register_buffer('first_left', None)
        self.register_buffer('first_right', None)

    @torch.no_grad()
    def start_from(self, weight: Tensor, scale: float) -> None:
        """Lets the factors start at the best sum of products for a weight, which is taken off."""
        number, size, _ = self.left.shape
        _, rows, columns = self.right.shape
        # Van Loan and Pitsianis (1993): the products are the singular values of a rearrangement.
        blocks = weight.float().unflatten(0, (size, rows)).unflatten(2, (size, columns))
        matrix = blocks.transpose(1, 2).reshape(size * size, rows * columns)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        root = (values[:number] / scale).sqrt()
        self.left.copy_((left[:, :number] * root).T.view_as(self.left))
        self.right.copy_((root[:, None] * right[:number]).view_as(self.right))
        self.first_left, self.first_right = self.left.detach().clone(), self.right.detach().clone()

    @constant
    def factors(self) -> tuple[Tensor, Tensor]:
        """Left and right factors; with a start of its own, those of the difference, twice as many.

        The gate multiplies the left ones, by one where all products are alike.
        """
        left: Tensor = self.left
        if self.logits is not None:
            left = left * (len(left) * self.logits.softmax(0))[:, None, None]
        if self.first_left is None or self.first_right is None:
            return left, self.right
        return torch.cat((left, -self.first_left)), torch.cat((self.right, self.first_right))


@MODELS.register_module()
class Kronecker(PETLMethod):
    r"""Kronecker adapters: MoKA (Sadeghi et al., 2025) and SoKA (2025).

    .. math::
        \Delta W = \alpha \sum_{k=1}^{K} \gamma_k \, L_k \otimes R_k

    with factors local to the site, of full rank each. With ``gate`` (MoKA), :math:`\gamma` is K
    times a softmax of learned logits, which weighs the products; else it is one. R starts at zero.
    With ``init='svd'`` (SoKA), the factors start at the K products that are closest to the weight,
    by the singular values of its rearrangement, and are taken off again, so that the model starts
    as the pretrained one; a file holds that start too. SoKA also chooses K by the spectrum, and
    MoKA lets shapes differ between products; here they are arguments.

    It stands beside :class:`~gleam_mm.petl.KAdaptation`, whose left factors are shared by all
    blocks and so have no one weight to start from. A site has
    :math:`K (a^2 + m n / a^2)` parameters, K more with a gate.

    Args:
        number: Number K of products.
        size: Side a of the left factors, a divisor of m and n; at best near their root.
        alpha: Factor of the update.
        gate: Whether the products are weighed.
        init: How they start, ``'zero'`` or ``'svd'``.
        sites: Roles to adapt, among ``qkv``, ``proj``, ``fc1`` and ``fc2``.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``alpha`` is not above 0 for ``init='svd'``, which divides by it; a site is no
            Linear, ``size`` divides not both of its widths, or there are fewer products than
            ``number``.
    """

    def __init__(
        self,
        number: Positive = 4,
        size: Positive = 32,
        alpha: float = 1.0,
        gate: bool = False,
        init: Literal['zero', 'svd'] = 'zero',
        sites: Sequence[str] = ('qkv',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        if init == 'svd' and alpha <= 0:
            raise ValueError(f'alpha={alpha}: init={init!r} divides by it; choose one above 0')
        self.number = number
        self.size = size
        self.alpha = alpha
        self.gate = gate
        self.init = init

    def build(self, sites: list[Site]) -> None:
        """Creates the factors of every site."""
        for site in sites:
            self.linear_of(site)
            rows, columns = site.out_features, site.in_features
            if rows % self.size or columns % self.size:
                raise ValueError(
                    f'size={self.size} does not divide the widths {columns} and {rows} of '
                    f'{site.name!r}'
                )
            own = KroneckerSum(self.number, self.size, rows, columns, self.gate)
            if self.init == 'svd':
                most = min(self.size**2, own.right[0].numel())
                if self.number > most:
                    raise ValueError(
                        f'number={self.number} exceeds the {most} products that the weight of '
                        f'{site.name!r} has at size={self.size}'
                    )
                own.start_from(site.weight, self.alpha)
            self.local[site.key] = own

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the products of the input, without ever making the matrix."""
        left, right = self.local[site.key].factors()
        blocks = x.unflatten(-1, (self.size, -1))
        half = torch.einsum('kpq,...qn->...kpn', left, blocks)
        update = torch.einsum('...kpn,kmn->...pm', half, right)
        return torch.add(y, update.flatten(-2), alpha=self.alpha)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the products to the weight."""
        left, right = self.local[site.key].factors()
        update = torch.einsum('kpq,kmn->pmqn', left, right).reshape_as(weight)
        return torch.add(weight, update, alpha=self.alpha), bias
