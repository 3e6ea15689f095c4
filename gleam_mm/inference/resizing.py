"""Sizes of pictures: a transform that timm has and MMPretrain lacks, and how large one may get."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import mmcv
from mmcv.transforms import BaseTransform, Pad, Resize
from mmpretrain.datasets.transforms import ResizeEdge

from gleam_mm.datasets.images import UnreadableImageError
from gleam_mm.registry import TRANSFORMS

_ENLARGED = 25_000_000  # pixels: a strip of 100:1 whose shorter side becomes 500
_TIMES = 4  # what is larger already may grow so much: 4:1 is padded to a square


class TooLargeImageError(UnreadableImageError):
    """A picture is so thin that it would be enlarged beyond all measure before it is cropped."""


@TRANSFORMS.register_module()
class ResizeToCover(BaseTransform):
    """Resizes a picture to the smallest size of its shape that covers another one.

    It is what timm does where the model's images are no squares (``ResizeKeepRatio``).

    Args:
        scale: The width and the height to cover.
        backend: ``pillow`` or ``cv2``.
        interpolation: As of the backend.
    """

    def __init__(
        self, scale: tuple[int, int], backend: str = 'pillow', interpolation: str = 'bicubic'
    ) -> None:
        self.scale = scale
        self.backend = backend
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Resizes ``img``, and sets ``img_shape``."""
        height, width = results['img'].shape[:2]
        size = self.covering(width, height)
        results['img'] = mmcv.imresize(
            results['img'], size, interpolation=self.interpolation, backend=self.backend
        )
        results['img_shape'] = results['img'].shape[:2]
        return results

    def covering(self, width: int, height: int) -> tuple[int, int]:
        """The width and the height that a picture is resized to."""
        ratio = min(height / self.scale[1], width / self.scale[0])
        return round(width / ratio), round(height / ratio)


def require_moderate(step: Callable, results: Mapping[str, Any]) -> None:
    """Refuses a picture that a transform would make too large for the memory, or leave nothing of.

    That is a matter of its shape: its shorter side is resized to what the model needs, and the
    longer one grows with it.

    Args:
        step: The transform. Those that make all pictures of one size may make it any.
        results: What it is about to be given.

    Raises:
        TooLargeImageError: It would have more than 25 million pixels, and four times its own.
        UnreadableImageError: It would have none.
    """
    height, width = results['img'].shape[:2]
    size = _size_after(step, width, height)
    if size is None:
        return
    told = (
        f'{results.get("img_path", "the picture")}: {width} x {height} pixels would become '
        f'{size[0]} x {size[1]}: crop it to a shape that is less thin'
    )
    if not min(size):
        raise UnreadableImageError(told)
    if math.prod(size) > max(_ENLARGED, _TIMES * width * height):
        raise TooLargeImageError(told)


def _size_after(step: Callable, width: int, height: int) -> tuple[int, int] | None:
    """The width and the height that a transform gives a picture, where they follow its shape."""
    if isinstance(step, ResizeToCover):
        return step.covering(width, height)
    if isinstance(step, ResizeEdge):
        short = step.edge == 'short'
        if step.edge == 'width' or (step.edge != 'height' and (width < height) == short):
            return step.scale, int(step.scale * height / width)
        return int(step.scale * width / height), step.scale
    if isinstance(step, Resize) and step.keep_ratio:
        return mmcv.rescale_size((width, height), step.scale)
    if isinstance(step, Pad) and step.size is None:
        sides = (max(width, height),) * 2 if step.pad_to_square else (width, height)
        by = step.size_divisor or 1
        return -(-sides[0] // by) * by, -(-sides[1] // by) * by
    return None
