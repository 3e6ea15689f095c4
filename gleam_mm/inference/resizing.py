"""A transform that timm has and MMPretrain lacks."""

import mmcv
from mmcv.transforms import BaseTransform

from gleam_mm.registry import TRANSFORMS


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
        ratio = min(height / self.scale[1], width / self.scale[0])
        size = round(width / ratio), round(height / ratio)
        results['img'] = mmcv.imresize(
            results['img'], size, interpolation=self.interpolation, backend=self.backend
        )
        results['img_shape'] = results['img'].shape[:2]
        return results
