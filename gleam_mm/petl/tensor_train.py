"""Matrices as tensor trains."""

import torch
from torch import Tensor, nn

from gleam_mm.petl.constants import constant


class TensorTrain(nn.Module):
    """A matrix (rows, columns) as a product of small cores, ``cores``.

    Both sides are cut into two or three factors that are as equal as they come. One core stands
    for each, (1 or k, factor, k or 1), from the first factor of the rows to the last one of the
    columns.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        rank: The inner width k of the train.
        zero: Whether the matrix starts at zero, by its last core; else at numbers with the
            variance of ``kaiming_uniform_``, 1 / (3 columns).
    """

    def __init__(self, rows: int, columns: int, rank: int, zero: bool = False) -> None:
        super().__init__()
        self.shape = rows, columns
        factors = [*factorized(rows), *factorized(columns)]
        self.cores = nn.ParameterList()
        for index, factor in enumerate(factors):
            left = 1 if index == 0 else rank
            right = 1 if index == len(factors) - 1 else rank
            self.cores.append(nn.Parameter(torch.empty(left, factor, right)))
        variance = 1 / (3 * columns) / rank ** (len(factors) - 1)
        for core in self.cores:
            nn.init.normal_(core, std=variance ** (0.5 / len(factors)))
        if zero:
            nn.init.zeros_(self.cores[-1])

    @constant
    def matrix(self) -> Tensor:
        """The matrix."""
        product = self.cores[0].flatten(0, 1)
        for core in list(self.cores)[1:]:
            product = (product @ core.flatten(1)).view(-1, core.shape[2])
        return product.view(self.shape)


def factorized(number: int) -> list[int]:
    """Two or three factors of a number, the small ones first: 768 is 8 x 8 x 12."""
    wanted = 3 if number >= 128 else 2
    factors = []
    for left in range(wanted, 1, -1):
        root = round(number ** (1 / left) + 1e-9)
        factor = max(n for n in range(1, root + 1) if number % n == 0)
        factors.append(factor)
        number //= factor
    return [*factors, number]
