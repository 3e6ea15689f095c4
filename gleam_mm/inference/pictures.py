"""Pictures: what may be given as one, how it is prepared, and what is told of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmengine.dataset
import numpy as np
from PIL import Image
from torch import Tensor, nn

from gleam_mm.arguments import Positive, check
from gleam_mm.datasets.folder import pictures_below
from gleam_mm.datasets.images import LoadImageFromFile, pixels_of
from gleam_mm.inference.preprocessing import Pipeline
from gleam_mm.models.regression_head import RegressionHead

Picture = str | Path | bytes | np.ndarray | Image.Image | Tensor
"""A file, what is in one, or pixels."""


class Prediction(NamedTuple):
    """A class of a picture.

    Attributes:
        label: The name of the class; its number where the adapter has no names.
        score: What the model gives it, from 0 to 1; the number, where numbers are predicted.
    """

    label: str | int
    score: float


class Preparation:
    """What is done to pictures before a model sees them.

    Args:
        pipeline: The transforms of each picture.
        preprocessor: The data preprocessor, which makes a batch of them.
    """

    def __init__(self, pipeline: Pipeline, preprocessor: nn.Module) -> None:
        self._pipeline = pipeline
        self.preprocessor = preprocessor

    def __call__(self, picture: Picture) -> dict[str, Any]:
        """Prepares one picture.

        Raises:
            UnreadableImageError: It cannot be read.
            TypeError: It is none.
            ValueError: Its shape or its numbers are none of a picture.
        """
        if isinstance(picture, str | Path | bytes) and self._pipeline.loads:
            return self._pipeline(_to_load(picture))
        rgb = as_rgb(picture)
        # Files are loaded as BGR. Images that a dataset has in memory come in the order that the
        # preprocessor expects, which turns them round or does not.
        turned = self._pipeline.loads or self._turns
        image = np.ascontiguousarray(rgb[..., ::-1]) if turned else rgb
        shape = image.shape[:2]
        return self._pipeline({'img': image, 'img_shape': shape, 'ori_shape': shape})

    def batch(self, prepared: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Makes a batch of prepared pictures: ``inputs`` (B, C, H, W), and ``data_samples``."""
        return self.preprocessor(mmengine.dataset.pseudo_collate(list(prepared)), False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of a prepared picture."""
        return tuple(self(np.zeros((64, 64, 3), np.uint8))['inputs'].shape)

    @property
    def gives_bgr(self) -> bool:
        """Whether the model is given BGR; RGB otherwise."""
        return self._pipeline.loads and not self._turns

    @property
    def _turns(self) -> bool:
        """Whether the preprocessor turns the order of the channels round."""
        names = ('to_rgb', '_channel_conversion')  # of MMPretrain's, and of MMEngine's
        return any(getattr(self.preprocessor, name, False) for name in names)


def is_folder(pictures: Any) -> bool:
    """Whether the path of a folder is given in the place of pictures."""
    return isinstance(pictures, str | Path) and Path(pictures).is_dir()


def pictures_in(folder: str | Path) -> list[str]:
    """The pictures in a folder at any depth, in the order of their names.

    Hidden files and folders are left out, as in training: beside each picture an archive of a Mac
    has a file of the same ending that is none.

    Raises:
        FileNotFoundError: There are none.
    """
    files = sorted(str(Path(folder, file)) for file in pictures_below(folder))
    if not files:
        raise FileNotFoundError(f'{folder}: no pictures in this folder')
    return files


def as_rgb(picture: Picture) -> np.ndarray:
    """A picture as an array (H, W, 3) of uint8, RGB.

    Args:
        picture: The picture. Pixels of an integer type are from 0 to 255, of a floating type from 0
            to 1: the type decides, and never the numbers.

    Raises:
        UnreadableImageError: It cannot be read.
        TypeError: It is none.
        ValueError: Its shape or its numbers are none of a picture.
    """
    if isinstance(picture, str | Path | bytes):
        return np.ascontiguousarray(LoadImageFromFile()(_to_load(picture))['img'][..., ::-1])
    if isinstance(picture, Image.Image):
        return np.ascontiguousarray(pixels_of(picture)[..., ::-1])
    if isinstance(picture, Tensor):
        tensor = picture.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor  # NumPy lacks bfloat16
        picture = (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()
    if not isinstance(picture, np.ndarray):
        raise TypeError(f'{type(picture).__name__} is no picture: give a file, array or PIL image')
    array = picture[..., None] if picture.ndim == 2 else picture
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(
            f'a picture of shape {picture.shape}: arrays are (H, W, 3) or (H, W), tensors (3, H, W)'
        )
    if not array.size:
        raise ValueError(f'a picture of shape {picture.shape} has no pixels')
    kinds = ((np.integer, 255), (np.floating, 1))
    most = next((most for kind, most in kinds if np.issubdtype(array.dtype, kind)), None)
    if most is None or not (array.min() >= 0 and array.max() <= most):
        numbers = '' if most is None else f' with numbers from {array.min():g} to {array.max():g}'
        raise ValueError(
            f'a picture of {array.dtype}{numbers}: give integers from 0 to 255, such as uint8, or '
            'floats from 0 to 1, without normalising them'
        )
    array = ((array * 255).round() if most == 1 else array).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_load(picture: str | Path | bytes) -> dict[str, Any]:
    """What the loader of a pipeline is given of a file, or of what is in one."""
    if isinstance(picture, bytes):
        return {'img_path': 'the picture', 'img_bytes': picture}
    return {'img_path': str(picture)}


def tells_numbers(head: Any) -> bool:
    """Whether what a head predicts is numbers, and no scores of classes."""
    return isinstance(head, RegressionHead)


def told(
    scores: Tensor,
    names: Sequence[str | int] | None,
    top_k: int | None = None,
    numbers: bool = False,
) -> list[Any]:
    """What is told of pictures: the classes with the highest scores, or all numbers.

    Args:
        scores: Of shape (B, classes), from 0 to 1; or numbers (B, targets).
        names: Names of the classes, or the targets; None for their indices.
        top_k: How many classes to tell of each picture, at least one.
        numbers: Whether they are numbers, see :func:`tells_numbers`.

    Returns:
        For each picture a list of :class:`Prediction`, of classes the best first; without ``top_k``
        the best class, or where there is one number that, alone.

    Raises:
        ArgumentError: ``top_k`` is no such number.
    """
    check(top_k, Positive | None, 'top_k')
    tell = _numbers if numbers else _best_classes
    return tell(scores, names, top_k)


def _best_classes(
    scores: Tensor, classes: Sequence[str | int] | None, top_k: int | None
) -> list[Any]:
    found = scores.topk(min(top_k or 1, scores.shape[-1]))
    best = [
        [
            Prediction(index if classes is None else classes[index], score)
            for score, index in zip(*pair, strict=True)
        ]
        for pair in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]
    return [predictions[0] for predictions in best] if top_k is None else best


def _numbers(numbers: Tensor, names: Sequence[str | int] | None, top_k: int | None) -> list[Any]:
    each = [
        [
            Prediction(index if names is None else names[index], number)
            for index, number in enumerate(row)
        ]
        for row in numbers.tolist()
    ]
    alone = top_k is None and numbers.shape[1] == 1
    return [predictions[0] for predictions in each] if alone else each
