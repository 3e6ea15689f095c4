"""MiniVTAB: small transfer tasks that need no download, split the way VTAB-1K splits its own."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
from mmpretrain.datasets import BaseDataset

from gleam_mm.registry import DATASETS

__all__ = ['MiniVTAB']

_SPLITS = ('train800', 'val200', 'train800val200', 'test')
_SPLIT_SEED = 0


class _Task(NamedTuple):
    """A task: the names of its classes, and what makes its images, before splitting.

    ``load(img_size)`` returns RGB images, uint8 ``(N, img_size, img_size, 3)``, and their labels,
    int64 ``(N,)``.
    """

    classes: tuple[str, ...]
    load: Callable[[int], tuple[np.ndarray, np.ndarray]]


@DATASETS.register_module()
class MiniVTAB(BaseDataset):
    """A small transfer task in memory, in the splits of VTAB-1K.

    The splits come from a fixed seed, and every class has its share in each: ``train800`` and
    ``val200`` choose hyper-parameters, ``train800val200`` is what a final model may train on, and
    ``test`` is everything else.

    Tasks:

    - ``digits``: the 1,797 handwritten digits that come with scikit-learn, 8 x 8 pixels enlarged by
      cubic interpolation; 797 of them are the test.

    Args:
        task (str): Name of the task. Defaults to ``'digits'``.
        split (str): ``'train800'``, ``'val200'``, ``'train800val200'`` or ``'test'``.
        img_size (int): Pixels a side. Defaults to 32.
        **kwargs: Further arguments of ``mmpretrain.datasets.BaseDataset``, such as ``pipeline``.

    Raises:
        ValueError: For a task or split that does not exist.
    """

    def __init__(self, task: str = 'digits', split: str = 'train800', img_size: int = 32, **kwargs):
        _check('task', task, tuple(_TASKS))
        _check('split', split, _SPLITS)
        if img_size < 8:
            raise ValueError(f'MiniVTAB: img_size must be at least 8, got {img_size}')
        self.task, self.split, self.img_size = task, split, img_size
        metainfo = dict(classes=_TASKS[task].classes)
        metainfo.update(kwargs.pop('metainfo', None) or {})
        super().__init__(ann_file='', metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Lists the split: ``img`` is RGB, uint8 ``(H, W, 3)``, and ``gt_label`` an int."""
        images, labels = _TASKS[self.task].load(self.img_size)
        return [
            dict(img=images[i], gt_label=int(labels[i]), sample_idx=int(i))
            for i in _split(labels)[self.split]
        ]

    def extra_repr(self) -> list[str]:
        """Describes the task in the dataset's printout."""
        return [f'Task: \t{self.task}', f'Split: \t{self.split}']


def _check(argument: str, value: str, known: tuple[str, ...]) -> None:
    """Raises a ValueError that names the closest of the known values."""
    if value not in known:
        close = get_close_matches(str(value), known, n=3, cutoff=0.4)
        hint = f' Did you mean {" or ".join(map(repr, close))}?' if close else ''
        raise ValueError(f'MiniVTAB has no {argument} {value!r}.{hint} It has: {", ".join(known)}.')


def _split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of every split, the same on any machine, classes in proportion.

    Every class is shuffled and spread evenly over the unit interval; reading all samples from left
    to right then meets the classes in proportion wherever one stops.
    """
    rng = np.random.RandomState(_SPLIT_SEED)  # its stream never changes between NumPy versions
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random_sample()) / len(members)
    order = np.argsort(place, kind='stable')
    return dict(
        train800=order[:800],
        val200=order[800:1000],
        train800val200=order[:1000],
        test=order[1000:],
    )


def _enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Cubic interpolation of ``(N, h, h)`` to ``(N, size, size)``, in float64.

    At a power of two the weights are dyadic fractions, so that the result is exact and its
    checksum the same on every machine.
    """
    old = images.shape[-1]
    position = (np.arange(size) + 0.5) * old / size - 0.5
    left = np.floor(position).astype(int)
    t = position - left
    # Keys' kernel with a = -1/2, for the neighbours at -1, 0, 1 and 2.
    weights = np.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ]
    )
    matrix = np.zeros((size, old))
    for shift, weight in zip(range(-1, 3), weights, strict=True):
        np.add.at(matrix, (np.arange(size), np.clip(left + shift, 0, old - 1)), weight)
    return matrix @ images @ matrix.T


def _digits(img_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's handwritten digits: white on black, 17 grey levels."""
    from sklearn.datasets import load_digits  # takes a second to import

    data = load_digits()
    grey = np.clip(_enlarge(data.images * 255 / 16, img_size), 0, 255)
    images = np.repeat(np.floor(grey + 0.5).astype(np.uint8)[..., None], 3, axis=-1)
    return images, data.target.astype(np.int64)


_TASKS = {
    'digits': _Task(
        ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'), _digits
    ),
}
