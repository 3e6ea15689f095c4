"""VTAB-1K, as the community lays it out on disk."""

import difflib
from pathlib import Path
from typing import NamedTuple

from gleam_mm.datasets.image_list import DATA_VARIABLE, ImageList, data_folder
from gleam_mm.registry import DATASETS

__all__ = ['SPLITS', 'VTAB1K', 'VTAB_TASKS', 'VTABTask', 'resolve_task']

FOLDER = 'vtab-1k'


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
SPLIT_SIZES = {'train800': 800, 'val200': 200, 'train800val200': 1000}

# Other names of the tasks in papers and codes, without blanks, hyphens and underscores.
_ALIASES = {
    'cifar': 'cifar100',
    'caltech101': 'caltech',
    'oxford_flowers102': 'flowers102 flowers oxfordflowers flower102',
    'oxford_iiit_pet': 'pets pet oxfordpets oxfordpet',
    'sun397': 'sun',
    'patch_camelyon': 'camelyon pcam',
    'resisc45': 'resisc',
    'diabetic_retinopathy': 'retinopathy diabeticretinopathydetection',
    'clevr_count': 'clevrcountall',
    'clevr_dist': 'clevrdistance clevrclosestobjectdistance',
    'kitti': 'kittidist kittidistance kitticlosestvehicledistance',
    'dsprites_loc': 'dspriteslocation dspritesxposition dsprloc dspriteslabelxposition',
    'dsprites_ori': 'dspritesorientation dsprori dspriteslabelorientation',
    'smallnorb_azi': 'smallnorbazimuth norbazi norbazimuth snorbazi snorbazim',
    'smallnorb_ele': 'smallnorbelevation norbele norbelevation snorbele snorbelev',
}


def resolve_task(name: str, tasks: dict, aliases: dict[str, str], what: str) -> str:
    """The folder name of a task by any of its usual names.

    Case, blanks, hyphens and underscores do not matter.

    Args:
        name: What the user wrote.
        tasks: The folder names.
        aliases: Folder name -> further names, blank-separated and normalised.
        what: What the tasks are called in an error.

    Raises:
        ValueError: There is no such task; the message has the closest ones.
    """
    known = {_plain(task): task for task in tasks}
    for task, others in aliases.items():
        known.update(dict.fromkeys(others.split(), task))
    if (plain := _plain(name)) in known:
        return known[plain]
    close = dict.fromkeys(known[match] for match in difflib.get_close_matches(plain, known, 3, 0.4))
    raise ValueError(f'unknown {what} {name!r}; did you mean: {", ".join(close or tasks)}?')


def vtab_task(name: str) -> str:
    """The folder name of a VTAB-1K task: ``cifar100`` -> ``cifar``, ``pets`` -> ..."""
    return resolve_task(name, VTAB_TASKS, _ALIASES, 'VTAB-1K task')


def _plain(name: str) -> str:
    return str(name).lower().translate(str.maketrans('', '', ' -_/'))


@DATASETS.register_module()
class VTAB1K(ImageList):
    """A task of VTAB-1K (Zhai et al., 2019).

    Expects ``<data_root>/<task>/<split>.txt`` with lines ``images/<split>/000000.jpg <label>``,
    relative to ``<data_root>/<task>``. The tasks come without class names; the classes are called
    by their numbers.

    Args:
        task: A key of :data:`VTAB_TASKS`, which is the name of the task's folder, or another usual
            name of it, such as ``cifar100``, ``flowers102``, ``pets`` or ``caltech-101``.
        split: ``train800``, ``val200``, ``train800val200`` or ``test``.
        data_root: The folder that holds the tasks. By default ``vtab-1k`` in the folder that the
            environment variable ``GLEAM_DATA`` names, else ``data/vtab-1k``.
        cache: Keeps decoded and resized images in memory that the workers share.
        **kwargs: Further arguments of MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: Unknown task or split, or a list with a malformed line or a label out of range.
        FileNotFoundError: The list of the split does not exist.
    """

    def __init__(
        self,
        task: str,
        split: str,
        data_root: str | None = None,
        cache: bool = False,
        **kwargs: object,
    ) -> None:
        self.task = vtab_task(task)
        if split not in SPLITS:
            raise ValueError(f'unknown split {split!r}; VTAB-1K has: {", ".join(SPLITS)}')
        self.split = split
        folder = data_folder(FOLDER, data_root) / self.task
        super().__init__(
            file=folder / f'{split}.txt',
            image_root=folder,
            num_classes=VTAB_TASKS[self.task].num_classes,
            cache=cache,
            **kwargs,
        )

    def _title(self) -> str:
        return self.task

    def _missing(self, file: Path) -> str:
        return (
            f'{file} does not exist: put VTAB-1K there, set {DATA_VARIABLE} to the folder that '
            f'holds {FOLDER}/, or set `data_root` of the dataset to the folder that holds the '
            'folders of its tasks'
        )
