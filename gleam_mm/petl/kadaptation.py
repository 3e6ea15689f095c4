"""KAdaptation: updates of queries and values as Kronecker products with shared factors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import PART_ROLES, Site
from gleam_mm.petl.constants import constant
from gleam_mm.petl.lora import LoRA
from gleam_mm.registry import MODELS


class Factors(nn.Module):
    """Two times n vectors (n, length), as ``left`` and ``right``.

    Args:
        number: Number n of each.
        length: Their length.
    """

    def __init__(self, number: int, length: int) -> None:
        super().__init__()
        bound = math.sqrt(3 / number)
        self.left = nn.Parameter(torch.empty(number, length).uniform_(-bound, bound))
        self.right = nn.Parameter(torch.empty(number, length).uniform_(-bound, bound))


@MODELS.register_module()
class KAdaptation(LoRA):
    r"""Kronecker adaptation (He et al., AAAI 2023).

    .. math::
        \Delta W = \alpha \sum_{i=1}^{n} (s_i t_i^T) \otimes (u_i v_i^T)
            = \alpha \sum_{i=1}^{n} (s_i \otimes u_i) (t_i \otimes v_i)^T

    for queries and for values. All blocks share s and t, of n numbers each, and have u and v to
    themselves, of d / n numbers, and a bias of the values. As the right side says, it is a low-rank
    update, and is computed as one. u starts at zero and the others at random; public code that
    starts both u and v at zero can never move. Dropout is of the input here, and of the numbers of
    :math:`\Delta W` in the official code. L blocks have :math:`4 n^2 + 5 L d` parameters.

    Args:
        number: Number n of summands, a divisor of the token width.
        alpha: Factor of the update.
        drop_rate: Dropout of the input.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``number`` divides no token width.
    """

    def __init__(
        self,
        number: Positive = 32,
        alpha: float = 1.0,
        drop_rate: Probability = 0.0,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(number, alpha * number, drop_rate, blocks=blocks)

    def build(self, sites: list[Site]) -> None:
        """Creates the shared factors, and those of every block with its bias."""
        for part in ('query', 'value'):
            self.shared[part] = Factors(self.rank, self.rank)
        for site in sites:
            if site.parts != PART_ROLES:
                raise ValueError(
                    f'KAdaptation adapts queries and values of a fused qkv, one behind the other; '
                    f'{site.name!r} is none'
                )
            if site.width % self.rank:
                raise ValueError(
                    f'number={self.rank} does not divide the token width {site.width} of '
                    f'{site.name!r}'
                )
            factors = {part: Factors(self.rank, site.width // self.rank) for part in self.shared}
            for pair in factors.values():
                nn.init.zeros_(pair.left)
            own = nn.ModuleDict(factors)
            own.register_parameter('bias', nn.Parameter(torch.zeros(site.width)))
            self.local[site.key] = own

    @constant
    def factors(self, site: Site, training: bool = False) -> tuple[Tensor, Tensor]:
        """A of 2 n rows, and B, whose first d rows write queries and whose last d write values."""
        own = self.local[site.key]
        downs, ups = [], []
        for part, shared in self.shared.items():
            downs.append(_kronecker(shared.right, own[part].right))
            ups.append(_kronecker(shared.left, own[part].left).T)
        keys = ups[0].new_zeros(site.width, 2 * self.rank)
        queries, values = torch.block_diag(*ups).split(site.width)
        return torch.cat(downs), torch.cat((queries, keys, values))

    @property
    def beside_factors(self) -> str | None:
        """The bias."""
        return 'a bias of the values'

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the update and the bias to queries and values."""
        return super().adapt(site, x, y) + self._shift(site)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the update to the weight, and the bias."""
        weight, _ = super().fold(site, weight, bias)
        shift = self._shift(site)
        return weight, shift if bias is None else bias + shift

    def _shift(self, site: Site) -> Tensor:
        return nn.functional.pad(self.local[site.key].bias, (2 * site.width, 0))


def _kronecker(shared: Tensor, own: Tensor) -> Tensor:
    """The Kronecker products of the rows of two matrices, as rows."""
    return (shared[:, :, None] * own[:, None]).flatten(1)
