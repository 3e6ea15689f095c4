"""MiniVTAB: small transfer tasks that need no download, split the way VTAB-1K splits its own."""

import numpy as np
from mmpretrain.datasets import BaseDataset

from gleam_mm.datasets.choose import stratified
from gleam_mm.datasets.vtab import SPLITS
from gleam_mm.messages import hint_at
from gleam_mm.minivtab.tasks import MINI_TASKS, load
from gleam_mm.registry import DATASETS


@DATASETS.register_module()
class MiniVTAB(BaseDataset):
    """A small transfer task in memory, in the splits of VTAB-1K.

    The splits come from a fixed seed, and every class has its share in each: ``train800`` and
    ``val200`` choose hyper-parameters, ``train800val200`` is what a final model may train on, and
    ``test`` is everything else.

    ``digits`` are the 1,797 handwritten digits that come with scikit-learn, 8 x 8 pixels enlarged
    by cubic interpolation; 797 of them are the test. All other tasks are drawn by formulas, bit for
    bit the same on every machine, and have 2,000 test images; ``docs/minivtab.md`` describes them.
    They are drawn on first use, which takes seconds, and kept in the folder that ``$GLEAM_CACHE``
    names, or else in the user's cache.

    Args:
        task (str): A key of :data:`MINI_TASKS`. Defaults to ``'digits'``.
        split (str): ``'train800'``, ``'val200'``, ``'train800val200'`` or ``'test'``.
        img_size (int): Pixels a side. Defaults to 32.
        **kwargs: Further arguments of ``mmpretrain.datasets.BaseDataset``, such as ``pipeline``.

    Raises:
        ValueError: For a task or split that does not exist.
    """

    def __init__(self, task: str = 'digits', split: str = 'train800', img_size: int = 32, **kwargs):
        _check('task', task, tuple(MINI_TASKS))
        _check('split', split, SPLITS)
        if img_size < 8:
            raise ValueError(f'MiniVTAB: img_size must be at least 8, got {img_size}')
        self.task, self.split, self.img_size = task, split, img_size
        metainfo = dict(classes=MINI_TASKS[task].classes)
        metainfo.update(kwargs.pop('metainfo', None) or {})
        super().__init__(ann_file='', metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Lists the split: ``img`` is RGB, uint8 ``(H, W, 3)``, and ``gt_label`` an int."""
        images, labels = load(self.task, self.img_size)
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
        hint = hint_at(str(value), known, 3)
        raise ValueError(f'MiniVTAB has no {argument} {value!r}{hint}; it has {", ".join(known)}')


def _split(labels: np.ndarray) -> dict[str, list[int]]:
    """Indices of every split, the same on any machine, classes in proportion."""
    train, val, test = stratified(labels, (800, 200, len(labels) - 1000), seed=0)
    return dict(zip(SPLITS, (train, val, train + val, test), strict=True))
