"""VTAB-1K, as the community lays it out on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gleam_mm.datasets.image_list import DATA_VARIABLE, ImageList, data_folder
from gleam_mm.messages import closest
from gleam_mm.registry import DATASETS

__all__ = ['SPLITS', 'VTAB1K', 'VTAB_TASKS', 'VTABTask', 'resolve_task']

FOLDER = 'vtab-1k'


class VTABTask(NamedTuple):
    """A task of VTAB-1K.

    Attributes:
        group: ``natural``, ``specialized`` or ``structured``.
        recipe: What recipes call its dataset.
        title: How tables head its column.
        num_classes: Number of classes.
        test_size: Images of the test split.
        aliases: Further names in papers and codes, blank-separated.
    """

    group: str
    recipe: str
    title: str
    num_classes: int
    test_size: int
    aliases: str = ''


#: Name of a task's folder -> the task, in the order of the papers' tables.
VTAB_TASKS = {
    'cifar': VTABTask('natural', 'vtab-cifar', 'CIFAR-100', 100, 10000),
    'caltech101': VTABTask('natural', 'vtab-caltech101', 'Caltech101', 102, 6084, 'caltech'),
    'dtd': VTABTask('natural', 'vtab-dtd', 'DTD', 47, 1880),
    'oxford_flowers102': VTABTask(
        'natural', 'vtab-flowers102', 'Flowers102', 102, 6149, 'flowers oxfordflowers flower102'
    ),
    'oxford_iiit_pet': VTABTask(
        'natural', 'vtab-pets', 'Pets', 37, 3669, 'pet oxfordpets oxfordpet'
    ),
    'svhn': VTABTask('natural', 'vtab-svhn', 'SVHN', 10, 26032),
    'sun397': VTABTask('natural', 'vtab-sun397', 'Sun397', 397, 21750, 'sun'),
    'patch_camelyon': VTABTask('specialized', 'vtab-camelyon', 'Camelyon', 2, 32768, 'pcam'),
    'eurosat': VTABTask('specialized', 'vtab-eurosat', 'EuroSAT', 10, 5400),
    'resisc45': VTABTask('specialized', 'vtab-resisc45', 'Resisc45', 45, 6300, 'resisc'),
    'diabetic_retinopathy': VTABTask(
        'specialized', 'vtab-retinopathy', 'Retinopathy', 5, 42670, 'diabeticretinopathydetection'
    ),
    'clevr_count': VTABTask(
        'structured', 'vtab-clevr-count', 'Clevr-Count', 8, 15000, 'clevrcountall'
    ),
    'clevr_dist': VTABTask(
        'structured',
        'vtab-clevr-dist',
        'Clevr-Dist',
        6,
        15000,
        'clevrdistance clevrclosestobjectdistance',
    ),
    'dmlab': VTABTask('structured', 'vtab-dmlab', 'DMLab', 6, 22735),
    'kitti': VTABTask(
        'structured',
        'vtab-kitti',
        'KITTI-Dist',
        4,
        711,
        'kittidistance kitticlosestvehicledistance',
    ),
    'dsprites_loc': VTABTask(
        'structured',
        'vtab-dsprites-loc',
        'dSpr-Loc',
        16,
        73728,
        'dspriteslocation dspritesxposition dspriteslabelxposition',
    ),
    'dsprites_ori': VTABTask(
        'structured',
        'vtab-dsprites-ori',
        'dSpr-Ori',
        16,
        73728,
        'dspritesorientation dspriteslabelorientation',
    ),
    'smallnorb_azi': VTABTask(
        'structured',
        'vtab-smallnorb-azi',
        'sNORB-Azim',
        18,
        12150,
        'smallnorbazimuth norbazi norbazimuth snorbazi',
    ),
    'smallnorb_ele': VTABTask(
        'structured',
        'vtab-smallnorb-ele',
        'sNORB-Ele',
        9,
        12150,
        'smallnorbelevation norbele norbelevation snorbelev',
    ),
}
SPLITS = ('train800', 'val200', 'train800val200', 'test')
SPLIT_SIZES = {'train800': 800, 'val200': 200, 'train800val200': 1000}


def resolve_task(name: str, tasks: Mapping[str, Any], what: str) -> str:
    """The folder name of a task by any of its usual names.

    Those are the folder's, the recipe's, the title and the aliases of a task. Case, blanks, hyphens
    and underscores do not matter.

    Args:
        name: What the user wrote.
        tasks: Folder name -> task, with ``recipe``, ``title`` and ``aliases``.
        what: What the tasks are called in an error.

    Raises:
        ValueError: There is no such task; the message has the closest ones.
    """
    known = {
        _plain(other): folder
        for folder, task in tasks.items()
        for other in (
            folder,
            task.recipe.partition('-')[2],
            task.title,
            *task.aliases.split(),
        )
    }
    if (plain := _plain(name)) in known:
        return known[plain]
    close = dict.fromkeys(known[match] for match in closest(plain, known, 3))
    raise ValueError(f'unknown {what} {name!r}; did you mean: {", ".join(close or tasks)}?')


def vtab_task(name: str) -> str:
    """The folder name of a VTAB-1K task: ``cifar100`` -> ``cifar``, ``pets`` -> ..."""
    return resolve_task(name, VTAB_TASKS, 'VTAB-1K task')


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
