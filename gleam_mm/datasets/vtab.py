"""VTAB-1K, as the community lays it out on disk."""

import difflib
from pathlib import Path
from typing import NamedTuple

from mmpretrain.datasets import BaseDataset

from gleam_mm.registry import DATASETS


class VTABTask(NamedTuple):
    """A task of VTAB-1K: its group, number of classes, and size of the test split."""

    group: str
    num_classes: int
    test_size: int


VTAB_TASKS = {
    'cifar': VTABTask('natural', 100, 10000),
    'caltech101': VTABTask('natural', 102, 6084),
    'dtd': VTABTask('natural', 47, 1880),
    'oxford_flowers102': VTABTask('natural', 102, 6149),
    'oxford_iiit_pet': VTABTask('natural', 37, 3669),
    'svhn': VTABTask('natural', 10, 26032),
    'sun397': VTABTask('natural', 397, 21750),
    'patch_camelyon': VTABTask('specialized', 2, 32768),
    'eurosat': VTABTask('specialized', 10, 5400),
    'resisc45': VTABTask('specialized', 45, 6300),
    'diabetic_retinopathy': VTABTask('specialized', 5, 42670),
    'clevr_count': VTABTask('structured', 8, 15000),
    'clevr_dist': VTABTask('structured', 6, 15000),
    'dmlab': VTABTask('structured', 6, 22735),
    'kitti': VTABTask('structured', 4, 711),
    'dsprites_loc': VTABTask('structured', 16, 73728),
    'dsprites_ori': VTABTask('structured', 16, 73728),
    'smallnorb_azi': VTABTask('structured', 18, 12150),
    'smallnorb_ele': VTABTask('structured', 9, 12150),
}
SPLITS = ('train800', 'val200', 'train800val200', 'test')


@DATASETS.register_module()
class VTAB1K(BaseDataset):
    """A task of VTAB-1K (Zhai et al., 2019).

    Expects ``<data_root>/<task>/<split>.txt`` with lines ``images/<split>/000000.jpg <label>``,
    relative to ``<data_root>/<task>``. The tasks come without class names; the classes are called
    by their numbers.

    Args:
        task: A key of :data:`VTAB_TASKS`, which is the name of the task's folder.
        split: ``train800``, ``val200``, ``train800val200`` or ``test``.
        data_root: The folder that holds the tasks.
        **kwargs: Further arguments of MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: Unknown task or split, or a list with a malformed line or a label out of range.
        FileNotFoundError: The list of the split does not exist.
    """

    def __init__(
        self, task: str, split: str, data_root: str = 'data/vtab-1k', **kwargs: object
    ) -> None:
        if task not in VTAB_TASKS:
            close = difflib.get_close_matches(task, VTAB_TASKS, cutoff=0.3) or VTAB_TASKS
            raise ValueError(f'unknown VTAB-1K task {task!r}; did you mean: {", ".join(close)}?')
        if split not in SPLITS:
            raise ValueError(f'unknown split {split!r}; VTAB-1K has: {", ".join(SPLITS)}')
        self.task = task
        self.split = split
        classes = tuple(str(index) for index in range(VTAB_TASKS[task].num_classes))
        super().__init__(
            ann_file=f'{split}.txt',
            metainfo={'classes': classes},
            data_root=str(Path(data_root) / task),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Reads the list of the split."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} does not exist: put VTAB-1K there, or set `data_root` of the dataset to '
                'the folder that holds the folders of its tasks'
            )
        with path.open(encoding='utf-8') as lines:
            return [
                self._parse_line(line, f'{path}, line {number}')
                for number, line in enumerate(lines, start=1)
                if line.strip()
            ]

    def _parse_line(self, line: str, where: str) -> dict:
        try:
            image, label = line.rsplit(maxsplit=1)
            label = int(label)
        except ValueError:
            raise ValueError(
                f'{where}: expected `<image path> <label>`, found {line.strip()!r}'
            ) from None
        if not 0 <= label < len(self.CLASSES):
            raise ValueError(
                f'{where}: label {label} is out of range; {self.task} has {len(self.CLASSES)} '
                f'classes, 0 to {len(self.CLASSES) - 1}'
            )
        return {'img_path': str(Path(self.data_root) / image), 'gt_label': label}
