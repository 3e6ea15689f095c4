"""Decoded and resized images in memory that the processes of a data loader share."""

import pickle
import shutil
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np
import torch

__all__ = ['CacheError', 'ImageCache']

_SHARED_MEMORY = Path('/dev/shm')


class CacheError(ValueError):
    """Images cannot be cached as the config asks; the message says why and what to do."""


class ImageCache:
    """Results of the deterministic first transforms of a pipeline, kept from the first use on.

    An image is made by whichever process asks for it first and read by all others. The memory is
    allocated when the cache is made, before the data loader starts its workers, and handed to them
    whether they are forked or spawned. On Linux it has no name in the file system, so that nothing
    is left behind however the processes end. Two processes that make the same image at once write
    the same bytes.

    All images have the shape of the first one. They are kept channel by channel, as tensors are,
    and given as views of that, so that packing one into a tensor need not turn it around. Beside
    the pixels a small record is kept of what else the transforms found out (``ori_shape``,
    ``scale_factor``, ...).

    Args:
        keys: What tells images apart, in most cases their paths. Equal keys share a place.
        make: Makes the result of a key: a dict whose ``img`` is a uint8 array ``(H, W, C)``. Called
            for the first key, which tells the images' shape.

    Raises:
        CacheError: The images are not uint8, or there is too little shared memory for them.
    """

    def __init__(self, keys: Sequence[Hashable], make: Callable[[Hashable], dict]) -> None:
        self._places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        first = make(keys[0])
        image = first.pop('img')
        if image.dtype != np.uint8 or image.ndim != 3:
            raise CacheError(
                f'cache=True keeps uint8 images (H, W, C), but {keys[0]} comes as {image.dtype} '
                f'{image.shape} out of the first transforms'
            )
        number = len(self._places)
        self._record_size = 2 * len(pickle.dumps(first)) + 256
        size = number * (image.size + self._record_size)
        _check_free(size)
        try:
            shape = (number, *image.transpose(2, 0, 1).shape)
            self._images = torch.empty(shape, dtype=torch.uint8).share_memory_()
            records = torch.zeros((number, self._record_size), dtype=torch.uint8)
            self._records = records.share_memory_()
            self._sizes = torch.zeros(number, dtype=torch.int32).share_memory_()
        except RuntimeError as error:
            raise CacheError(_too_large(size)) from error

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory."""
        return sum(part.numel() * part.element_size() for part in self._parts())

    @property
    def filled(self) -> int:
        """Images that are in the cache by now."""
        return int((self._sizes > 0).sum())

    def get(self, key: Hashable, make: Callable[[Hashable], dict]) -> dict:
        """The result of a key, made now or earlier; ``img`` is the caller's own copy.

        Raises:
            CacheError: The image has another shape than the first one.
        """
        place = self._places[key]
        if size := int(self._sizes[place]):
            result = pickle.loads(self._records[place, :size].numpy().tobytes())
            result['img'] = self._images[place].numpy().copy().transpose(1, 2, 0)
            return result
        result = make(key)
        image = result['img']
        channels, *sides = self._images.shape[1:]
        shape = (*sides, channels)
        if image.shape != shape or image.dtype != np.uint8:
            raise CacheError(
                f'cache=True needs images of one size, but {key} is {image.shape} where the first '
                f'one is {shape}: put a Resize behind LoadImageFromFile, before anything random, '
                'or set cache=False'
            )
        record = pickle.dumps({name: value for name, value in result.items() if name != 'img'})
        if len(record) > self._record_size:
            raise CacheError(
                f'{key}: the first transforms add too much beside the image for cache=True'
            )
        self._images[place].numpy()[:] = image.transpose(2, 0, 1)
        self._records[place, : len(record)] = torch.frombuffer(bytearray(record), dtype=torch.uint8)
        self._sizes[place] = len(record)  # last: from here on others read it
        return result

    def __deepcopy__(self, memo: dict) -> 'ImageCache':
        # Copies of a dataset, such as its subsets, share the memory.
        return self

    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self._images, self._records, self._sizes


def _check_free(size: int) -> None:
    """Raises a CacheError where the shared memory is known to be too small, as in containers."""
    if _SHARED_MEMORY.is_dir() and size > shutil.disk_usage(_SHARED_MEMORY).free:
        raise CacheError(_too_large(size))


def _too_large(size: int) -> str:
    return (
        f'cache=True needs {size / 2**20:,.0f} MiB of shared memory ({_SHARED_MEMORY}), which has '
        'less: give the container more, such as docker run --shm-size=2g, or set cache=False'
    )
