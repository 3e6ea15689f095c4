"""The low-rank updates that files of LoRA hold, and products of matrices cut to a rank."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gleam_mm.combine.files import counters
from gleam_mm.models.description import with_defaults

LORA = ('LoRA', 'DyLoRA', 'MLAE')
"""Methods whose update of a site is one product, which a plain LoRA can express."""

_NAMES = ('down', 'up', 'first_down', 'first_up', 'coefficients')


class Product(NamedTuple):
    """An update as the product of ``up`` (m, r) and ``down`` (r, n)."""

    up: Tensor
    down: Tensor

    @property
    def matrix(self) -> Tensor:
        """The update itself."""
        return self.up @ self.down


def is_lora(config: Mapping[str, Any]) -> bool:
    """Whether a method's update of a site is one product, which no gate weighs."""
    told = _complete(config)
    return told['type'] in LORA and not told.get('gate')


def products(
    config: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor]
) -> dict[str, Product]:
    """The updates of a LoRA, by what the names of a site's tensors begin with.

    Args:
        config: The config of the LoRA.
        prefix: What the names of its tensors begin with.
        tensors: What a file has.
    """
    found = {}
    for name in tensors:
        if name.startswith(f'{prefix}local.') and name.endswith('.up'):
            site = name.removesuffix('up')
            up, down, *rest = (tensors.get(site + key) for key in ('up', 'down', *_NAMES[2:]))
            found[site] = Product(*_factors(_scale(config), up, down, *rest))
    return found


def names_of(config: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor]) -> set[str]:
    """The names of all tensors that a LoRA's file has, as for :func:`products`."""
    sites = {name.removesuffix('up') for name in tensors if name.endswith('.up')}
    own = {site + key for site in sites if site.startswith(prefix) for key in _NAMES}
    return (own | counters(config, prefix)) & tensors.keys()


def plain_lora(config: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The config of the LoRA that holds products of some rank, whose update is not scaled."""
    told = _complete(config)  # by defaults that are not those of a LoRA
    kept = {key: told[key] for key in ('drop_rate', 'sites', 'blocks')}
    return {'type': 'LoRA', 'rank': rank, 'alpha': float(rank), **kept}


def concatenated(updates: Sequence[Product], weights: Sequence[float]) -> Product:
    """The weighted sum of products, exactly: as many columns and rows as all have together."""
    roots = [abs(weight) ** 0.5 for weight in weights]
    signs = [1.0 if weight >= 0 else -1.0 for weight in weights]
    up = [u.up * (r * s) for u, r, s in zip(updates, roots, signs, strict=True)]
    down = [u.down * r for u, r in zip(updates, roots, strict=True)]
    return Product(torch.cat(up, dim=1), torch.cat(down))


def cut(update: Product, rank: int) -> tuple[Product, float, float]:
    """The nearest product of some rank.

    Returns:
        The product; the energy (the sum of squared singular values) that it has; and all energy.
    """
    left, inner = torch.linalg.qr(update.up.double())
    right, outer = torch.linalg.qr(update.down.double().T)
    return _from_svd(*torch.linalg.svd(inner @ outer.T), rank, left, right.T)


def cut_matrix(matrix: Tensor, rank: int) -> tuple[Product, float, float]:
    """As :func:`cut`, of a matrix."""
    return _from_svd(*torch.linalg.svd(matrix.double(), full_matrices=False), rank)


def rank_of_energy(matrix: Tensor, energy: float) -> int:
    """The smallest rank at which a matrix keeps a share of its energy; 1 for a matrix of zeros."""
    squares = torch.linalg.svdvals(matrix.double()).square()
    share = squares.cumsum(0) / squares.sum()
    return min(int((share < energy).sum()) + 1, len(squares))


def _from_svd(
    u: Tensor,
    values: Tensor,
    vh: Tensor,
    rank: int,
    left: Tensor | None = None,
    right: Tensor | None = None,
) -> tuple[Product, float, float]:
    """U S^1/2 and S^1/2 V^T of the largest singular values, padded with zeros to the rank."""
    kept = values[:rank]
    up, down = u[:, : len(kept)] * kept.sqrt(), kept.sqrt()[:, None] * vh[: len(kept)]
    if left is not None and right is not None:
        up, down = left @ up, down @ right
    missing = rank - len(kept)
    up = torch.nn.functional.pad(up, (0, missing)).float()
    down = torch.nn.functional.pad(down, (0, 0, 0, missing)).float()
    return Product(up, down), float(kept.square().sum()), float(values.square().sum())


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    return with_defaults({**config, 'type': str(config['type']).rpartition('.')[2]})


def _scale(config: Mapping[str, Any]) -> float:
    told = _complete(config)
    return told.get('alpha', told['rank']) / told['rank']  # without alpha nothing is scaled


def _factors(
    scale: float,
    up: Any,
    down: Any,
    first_down: Tensor | None,
    first_up: Tensor | None,
    coefficients: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if coefficients is not None:
        up = up * coefficients
    if first_down is not None and first_up is not None:
        up, down = torch.cat((up, -first_up), dim=1), torch.cat((down, first_down))
    return up * scale, down
