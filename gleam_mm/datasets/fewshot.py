"""The five few-shot sets of fine-grained visual classification (FGVC) that PETL papers use."""

from pathlib import Path
from typing import NamedTuple

from gleam_mm.datasets.image_list import DATA_VARIABLE, ImageList, data_folder
from gleam_mm.datasets.lists import read_list
from gleam_mm.datasets.vtab import resolve_task
from gleam_mm.registry import DATASETS

__all__ = ['FGVC_SEEDS', 'FGVC_SHOTS', 'FGVC_TASKS', 'FGVCTask', 'FewShotFGVC', 'fgvc_task']

FOLDER = 'fgvc'
FGVC_SHOTS = (1, 2, 4, 8, 16)
FGVC_SEEDS = (0, 1, 2)
SPLITS = ('train', 'val', 'test')


class FGVCTask(NamedTuple):
    """A few-shot set.

    Attributes:
        recipe: What recipes call its dataset.
        title: How tables head its column.
        num_classes: Number of classes.
        val_size: Lines of the published ``val_meta.list``.
        test_size: Lines of the published ``test_meta.list``.
        folders: Names that the folder has in public codes; the first is ours.
        aliases: Further names in papers and codes, blank-separated.
    """

    recipe: str
    title: str
    num_classes: int
    val_size: int
    test_size: int
    folders: tuple[str, ...]
    aliases: str


#: Name of a set's folder -> the set, in the order of the papers' tables.
FGVC_TASKS = {
    'food-101': FGVCTask(
        'fgvc-food101', 'Food-101', 101, 20200, 30300, ('food-101', 'food101'), 'food'
    ),
    'stanford_cars': FGVCTask(
        'fgvc-cars',
        'Stanford Cars',
        196,
        1635,
        8041,
        ('stanford_cars', 'stanford-cars', 'standford-cars'),
        'standfordcars stanfordcars196',
    ),
    'oxford_flowers': FGVCTask(
        'fgvc-flowers102',
        'Flowers102',
        102,
        1633,
        2463,
        ('oxford_flowers', 'oxford-flowers102'),
        'flowers oxfordflowers102',
    ),
    'fgvc_aircraft': FGVCTask(
        'fgvc-aircraft',
        'Aircraft',
        100,
        3333,
        3333,
        ('fgvc_aircraft', 'fgvc-aircraft'),
        'fgvcaircraft100',
    ),
    'oxford_pets': FGVCTask(
        'fgvc-pets', 'Pets', 37, 736, 3669, ('oxford_pets', 'oxford-pets'), 'oxfordiiitpet'
    ),
}
# The published lists write paths relative to the folder with the images of the original data.
IMAGE_FOLDERS = ('images', 'jpg', '', 'data/images')


def fgvc_task(name: str) -> str:
    """Our folder name of a few-shot set: ``cars`` -> ``stanford_cars``."""
    return resolve_task(name, FGVC_TASKS, 'few-shot FGVC task')


def task_folder(task: str, root: Path) -> Path:
    """The folder of a set, under whichever of its names exists."""
    candidates = [root / folder for folder in FGVC_TASKS[task].folders]
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])


def list_file(folder: Path, split: str, shots: int | None = None, seed: int | None = None) -> Path:
    """The list of a split inside the folder of a set."""
    tail = f'.num_shot_{shots}.seed_{seed}' if split == 'train' else ''
    return folder / 'annotations' / f'{split}_meta.list{tail}'


def image_folder(folder: Path, first_image: str) -> Path:
    """The folder that a list's paths are relative to: the one that has its first image."""
    candidates = [folder / name for name in IMAGE_FOLDERS]
    return next((place for place in candidates if (place / first_image).is_file()), candidates[0])


@DATASETS.register_module()
class FewShotFGVC(ImageList):
    """A few-shot set of fine-grained classification, with the splits of NOAH (Zhang et al., 2022).

    Expects ``<data_root>/<task>/annotations/`` with the published lists
    ``train_meta.list.num_shot_<shots>.seed_<seed>``, ``val_meta.list`` and ``test_meta.list``,
    whose lines are ``<path> <label>``. Paths are relative to ``images/``, ``jpg/`` (as the flowers
    are unpacked), the task's folder itself or its ``data/images/``, whichever has the list's first
    image.

    Args:
        task: ``fgvc_aircraft``, ``food-101``, ``oxford_flowers``, ``oxford_pets`` or
            ``stanford_cars``, or another usual name, such as ``cars``.
        shots: Images a class of the training split; lists for 1, 2, 4, 8 and 16 are published. The
            other splits do not depend on it.
        seed: Which choice of those images; lists for 0, 1 and 2 are published.
        split: ``train``, ``val`` or ``test``.
        data_root: The folder that holds the tasks. By default ``fgvc`` in the folder that the
            environment variable ``GLEAM_DATA`` names, else ``data/fgvc``.
        cache: Keeps what the pipeline's first, deterministic transforms make in memory that the
            workers share. It needs images of one size: a ``Resize`` before anything random.
        **kwargs: Further arguments of MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: Unknown task or split, no shots or seed for the training split, or a list with
            a malformed line or a label out of range.
        FileNotFoundError: The list of the split does not exist.
    """

    def __init__(
        self,
        task: str,
        shots: int | None = None,
        seed: int | None = None,
        split: str = 'train',
        data_root: str | None = None,
        cache: bool = False,
        **kwargs: object,
    ) -> None:
        self.task = fgvc_task(task)
        if split not in SPLITS:
            raise ValueError(f'unknown split {split!r}; few-shot FGVC has: {", ".join(SPLITS)}')
        if split == 'train' and (shots is None or seed is None):
            raise ValueError(
                'the training split of FewShotFGVC needs `shots` and `seed`, such as shots=16, '
                'seed=0'
            )
        self.split, self.shots, self.seed = split, shots, seed
        folder = task_folder(self.task, data_folder(FOLDER, data_root))
        super().__init__(
            file=list_file(folder, split, shots, seed),
            image_root=folder,
            num_classes=FGVC_TASKS[self.task].num_classes,
            cache=cache,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Reads the list, and finds the folder that its paths are relative to."""
        file = Path(self.ann_file)
        first = next(read_list(file, self.class_to_idx), None) if file.is_file() else None
        if first is not None:
            self.image_root = image_folder(self.image_root, first.image)
        return super().load_data_list()

    def _title(self) -> str:
        return self.task

    def _missing(self, file: Path) -> str:
        there = sorted(other.name for other in file.parent.glob('train_meta.list.num_shot_*'))
        if self.split == 'train' and there:
            return (
                f'{file} does not exist: set `shots` and `seed` to a list that does: '
                f'{", ".join(name.removeprefix("train_meta.list.") for name in there)}'
            )
        return (
            f'{file} does not exist: put the set there, set {DATA_VARIABLE} to the folder that '
            f'holds {FOLDER}/, or set `data_root` of the dataset to the folder that holds the '
            'folders of its tasks'
        )
