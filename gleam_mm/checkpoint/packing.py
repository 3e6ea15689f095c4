"""Matrices in few bits: how they are rounded, and how an adapter file holds them.

A matrix W becomes ``mean(W) + std(W) q((W - mean(W)) / std(W))``, where q rounds to the nearest of
the ``2 ** bits`` levels that are best for a normal variable. A file holds, in the place of the
matrix, the numbers of the levels, of so many bits each, and beside it, as ``<name>_scales``, the
mean and the standard deviation.
"""

import math
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gleam_mm.checkpoint.files import CheckpointError

BITS = (1, 2, 4, 8)
"""How many bits a number may have: as many as divide a byte."""

_FAR = 40.0  # standard deviations, beyond which a normal variable has no mass in double precision


@cache
def levels(bits: int) -> Tensor:
    """The levels with the least mean squared error for a standard normal variable (Lloyd, Max).

    Each is the mean of what is rounded to it; Newton's method solves for all at once. Of one bit
    they are plus and minus the square root of 2 / pi.

    Args:
        bits: One of :data:`BITS`.

    Returns:
        The 2^bits levels in rising order, in double precision.
    """
    number = 2**bits
    ranks = torch.arange(number, dtype=torch.float64, device='cpu')
    found = math.sqrt(3) * torch.special.ndtri((ranks + 0.5) / number)  # dense where few bits are
    far = torch.full_like(found[:1], _FAR)
    for _ in range(100):
        edges = torch.cat((-far, (found[1:] + found[:-1]) / 2, far))
        density = torch.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
        mass = torch.special.ndtr(edges).diff()
        mean = -density.diff() / mass
        below = density[:-1] * (mean - edges[:-1]) / mass / 2  # slopes of the mean by the levels
        above = density[1:] * (edges[1:] - mean) / mass / 2
        slopes = torch.diag(1 - below - above)
        slopes -= torch.diag(below[1:], -1) + torch.diag(above[:-1], 1)
        step = torch.linalg.solve(slopes, found - mean)
        found = found - step
        if step.abs().max() < 1e-12:
            break
    return (found - found.flip(0)) / 2


def scales_of(matrix: Tensor) -> Tensor:
    """The mean and the standard deviation of all numbers of a matrix."""
    return torch.stack((matrix.mean(), matrix.std(correction=0)))


def scales_for(matrix: Tensor, given: Tensor, table: Tensor) -> Tensor:
    """What a matrix is rounded with: what it was rounded with already, or else its own scales.

    Args:
        matrix: The matrix.
        given: The scales that it was rounded with, unless it was changed since; or NaN.
        table: The levels.
    """
    before = decode(encode(matrix, given, table), given, table)
    slack = torch.finfo(torch.bfloat16).eps  # it may have been in half precision meanwhile
    unchanged = ((matrix - before).abs() <= slack * before.abs()).all()
    return torch.where(unchanged, given, scales_of(matrix))


def encode(matrix: Tensor, scales: Tensor, table: Tensor) -> Tensor:
    """The number of the nearest level, for each number of a matrix.

    Args:
        matrix: The matrix.
        scales: Its mean and standard deviation.
        table: The levels.
    """
    mean, deviation = scales
    tiny = torch.finfo(matrix.dtype).tiny
    standardized = (matrix - mean) / deviation.clamp_min(tiny)
    return torch.bucketize(standardized, (table[1:] + table[:-1]) / 2)


def decode(codes: Tensor, scales: Tensor, table: Tensor) -> Tensor:
    """What the numbers of levels stand for."""
    mean, deviation = scales
    return table[codes] * deviation + mean


def packable(
    tensors: Mapping[str, Tensor], packed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """The forms of those matrices whose mean and deviation are finite, for they alone have levels.

    Of a training that diverged, the others stay as they are, so that the file can be read.

    Args:
        tensors: As of :func:`pack`.
        packed: The same.
    """
    return {
        name: form for name, form in packed.items() if scales_of(tensors[name]).isfinite().all()
    }


def pack(tensors: Mapping[str, Tensor], packed: Mapping[str, Mapping]) -> dict[str, Tensor]:
    """Packs some matrices.

    Args:
        tensors: Tensors by name. A matrix that was rounded with the scales beside it is packed
            without any loss.
        packed: Name of a matrix -> its ``bits`` and ``shape``; of those in :func:`packable`.

    Returns:
        The tensors as a file holds them.
    """
    tensors = dict(tensors)
    for name, form in packed.items():
        matrix, given = tensors[name], tensors.get(f'{name}_scales')
        table = levels(form['bits']).to(matrix.dtype)
        scales = scales_of(matrix) if given is None else scales_for(matrix, given, table)
        tensors[name] = _to_bytes(encode(matrix, scales, table).flatten(), form['bits'])
        tensors[f'{name}_scales'] = scales
    return tensors


def unpack(tensors: Mapping[str, Tensor], packed: Mapping[str, Mapping]) -> dict[str, Tensor]:
    """Undoes :func:`pack`: matrices have their rounded numbers, their scales stay beside them.

    Raises:
        CheckpointError: Codes or scales are missing, or not what was packed.
    """
    tensors = dict(tensors)
    for name, form in packed.items():
        codes, scales = tensors.get(name), tensors.get(f'{name}_scales')
        bits, shape = form['bits'], form['shape']
        size = -(-math.prod(shape) * bits // 8)
        if codes is None or codes.dtype != torch.uint8 or codes.shape != (size,):
            raise CheckpointError(f'{name} is not {size} bytes for {bits} bits of {shape}')
        if scales is None or scales.shape != (2,) or not scales.isfinite().all():
            raise CheckpointError(f'{name}_scales is no mean and standard deviation of {name}')
        numbers = _from_bytes(codes, bits)[: math.prod(shape)].view(shape)
        tensors[name] = decode(numbers, scales, levels(bits).to(scales.dtype))
    return tensors


def without_scales(tensors: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Leaves out the scales of matrices that were packed after the training.

    The model knows nothing of them, and has the rounded matrices like any others.

    Args:
        tensors: What a file has, by name.
        known: The names that the model has.
    """
    strange = {f'{name}_scales' for name in known} - set(known)
    return {name: tensor for name, tensor in tensors.items() if name not in strange}


def forms_of(bits: Mapping[str, int], tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """How matrices are packed, as metadata say it: name -> ``bits`` and ``shape``."""
    return {name: {'bits': b, 'shape': list(tensors[name].shape)} for name, b in bits.items()}


def _to_bytes(codes: Tensor, bits: int) -> Tensor:
    in_byte = 8 // bits
    codes = torch.cat((codes, codes.new_zeros(-len(codes) % in_byte))).view(-1, in_byte)
    return (codes << _shifts(bits)).sum(1).to(torch.uint8)


def _from_bytes(data: Tensor, bits: int) -> Tensor:
    return ((data.long()[:, None] >> _shifts(bits)) & (2**bits - 1)).flatten()


def _shifts(bits: int) -> Tensor:
    return torch.arange(0, 8, bits)
