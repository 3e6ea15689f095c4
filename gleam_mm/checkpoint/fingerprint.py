"""Hashes that tell sets of weights apart, whatever class their tensors are of."""

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Tells sets of weights apart.

    A tensor that is made of others, such as torchao's quantised ones, counts by its class, type and
    shape, and by what it is made of: nothing has to be dequantised.

    Args:
        tensors: Tensors by name, in any order and on any device.

    Returns:
        Hexadecimal SHA-256 over the sorted names, the types, shapes and bytes.

    Raises:
        TypeError: A tensor hides its numbers; the message has its name.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        try:
            for header, plain in _parts(name, tensors[name].detach()):
                digest.update(f'{header}\n'.encode())
                if plain is not None:
                    digest.update(
                        plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
                    )
        except (NotImplementedError, RuntimeError) as error:
            raise TypeError(
                f'{name}: a {type(tensors[name]).__name__} hides its numbers, so that they have no '
                f'fingerprint ({str(error).splitlines()[0]})'
            ) from error
    return digest.hexdigest()


def _parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor | None]]:
    """What is hashed of a tensor: lines of text, and the plain tensors that follow them."""
    header = f'{name} {tensor.dtype} {tuple(tensor.shape)}'
    if hasattr(tensor, '__tensor_flatten__'):
        yield f'{header} {type(tensor).__qualname__}', None
        for part in tensor.__tensor_flatten__()[0]:
            yield from _parts(f'{name}.{part}', getattr(tensor, part))
    elif tensor.is_quantized:  # a type of torch's own
        yield header, tensor.int_repr()
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            yield f'{tensor.q_scale()} {tensor.q_zero_point()}', None
        else:
            yield f'{tensor.q_per_channel_axis()} scales', tensor.q_per_channel_scales()
            yield 'zero points', tensor.q_per_channel_zero_points()
    else:
        # Without its class: bitsandbytes keeps quantised numbers in a Parameter of its own.
        plain = tensor.as_subclass(Tensor)
        if plain.numel() and not plain.data_ptr():
            raise NotImplementedError('it has no memory of its own')
        yield header, plain
