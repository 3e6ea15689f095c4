"""Adapter files made smaller after the training."""

from pathlib import Path

import torch
from torch import Tensor

from gleam_mm.checkpoint.adapter import read_adapter, save_adapter
from gleam_mm.checkpoint.files import CheckpointError
from gleam_mm.checkpoint.packing import forms_of, scales_of
from gleam_mm.fileio import require_new

FORMS = ('8', '4', '2', '1', 'fp16')

_FEWEST = 64  # numbers of a matrix that is worth two scales with a name of their own


def compress(path: str | Path, out: str | Path, form: str) -> int:
    """Writes an adapter file anew, with fewer bits.

    It loads into the same model. Vectors, such as biases and scales, keep their precision, and so
    do matrices that are packed already. The metrics that the file tells are left out: they were
    measured with other numbers.

    Args:
        path: The adapter file.
        out: The file to write.
        form: One of :data:`FORMS`: so many bits for a number of a matrix, or half precision for all
            numbers.

    Returns:
        How many matrices have few bits, or how many tensors half precision, that had not.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged or no adapter file, has a matrix with numbers that are not
            finite, or nothing in it can be compressed.
    """
    require_new(out)
    tensors, metadata = read_adapter(path)
    metadata.pop('metrics', None)
    packed = metadata.get('packed') or {}
    kept = packed.keys() | {f'{name}_scales' for name in packed}
    if form == 'fp16':
        chosen = [
            name for name, t in tensors.items() if t.dtype == torch.float32 and name not in kept
        ]
        tensors |= {name: _halved(tensors[name], name, path) for name in chosen}
    else:
        chosen = [
            name
            for name, tensor in tensors.items()
            if tensor.is_floating_point() and tensor.ndim > 1 and name not in kept
            if tensor.numel() >= _FEWEST
        ]
        for name in chosen:
            if not scales_of(tensors[name]).isfinite().all():
                raise CheckpointError(
                    f'{path}: {name} has numbers that are not finite, or too large, for which '
                    f'{form} bits have no levels'
                )
        metadata['packed'] = packed | forms_of(dict.fromkeys(chosen, int(form)), tensors)
    if not chosen:
        raise CheckpointError(f'{path}: nothing in it can be compressed any more')
    save_adapter(out, tensors, metadata)
    return len(chosen)


def _halved(tensor: Tensor, name: str, path: str | Path) -> Tensor:
    half = tensor.half()
    if (half.isinf() & tensor.isfinite()).any():
        raise CheckpointError(f'{path}: {name} has numbers that are too large for half precision')
    return half
