"""Original datasets as users have them on disk, as pools of labelled images."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from gleam_mm.datasets.folder import pictures_below
from gleam_mm.datasets.hugging_face import encoded
from gleam_mm.datasets.images import open_image
from gleam_mm.datasets.lists import ImageListError, check_path, parse_line, raw_lines, text_of
from gleam_mm.datasets.splits import folders_in, splits_among, splits_in
from gleam_mm.messages import listed
from gleam_mm.prepare.origins import (
    KITTI_VEHICLES,
    clevr_count,
    clevr_distance,
    kitti_distance,
    sixteenth,
)

__all__ = ['Pool', 'open_folder', 'open_huggingface', 'open_torchvision']


@dataclass(frozen=True)
class Pool:
    """Labelled images to choose from.

    Attributes:
        labels: Label of each image.
        load: Opens the image of an index.
        name: What identifies the image of an index in the whole source, not only in this pool.
    """

    labels: Sequence[int]
    load: Callable[[int], Image.Image]
    name: Callable[[int], str]


def _files_pool(root: Path, files: Sequence[Path], labels: Sequence[int]) -> Pool:
    return Pool(
        labels,
        lambda index: open_image(files[index]),
        lambda index: os.path.relpath(files[index], root),
    )


# Folders -----------------------------------------------------------------------------------------


def open_folder(task: str, root: Path, lists: dict[str, Path] | None = None) -> dict[str, Pool]:
    """Opens a folder of images.

    CLEVR, KITTI and dSprites are read as their authors distribute them. Of other tasks the folder
    holds ``<class>/<image>`` or ``<split>/<class>/<image>``, of which the classes are those of the
    training split, or lists say which image is in which split: lines ``<path> <label>``, or
    ``<class>/<image>`` alone.

    Args:
        task: Folder name of the task.
        root: The folder.
        lists: Split (``train``, ``val``, ``test``) -> list.

    Returns:
        Split -> pool.

    Raises:
        FileNotFoundError: The folder, or what it must contain, does not exist.
        ValueError: A list is malformed or names a file that does not exist, a split has two
            folders, or there is none of training, or it lacks a class that another split has.
    """
    if not root.exists():
        raise FileNotFoundError(f'{root} does not exist')
    if lists:
        return {split: _listed(root, file) for split, file in lists.items()}
    if task.startswith('clevr'):
        return _clevr(task, root)
    if task == 'kitti':
        return _kitti(root)
    if task.startswith('dsprites'):
        return _dsprites(task, root)
    folders = {split: root / name for split, name in splits_in(root).items()} or {'train': root}
    if 'train' not in folders:
        raise ValueError(f'{root}: has {listed(folders_in(root))}, but no folder train')
    classes = folders_in(folders['train'])
    return {split: _class_folders(folder, root, classes) for split, folder in folders.items()}


def _class_folders(folder: Path, root: Path, classes: Sequence[str]) -> Pool:
    names = folders_in(folder)
    if others := sorted({*names} - {*classes}):
        raise ValueError(
            f'{folder}: of its {len(names)} folders of classes these are none of the '
            f'{len(classes)} of training: {listed(others)}'
        )
    files: list[Path] = []
    labels: list[int] = []
    for name in names:
        found = sorted(folder / name / file for file in pictures_below(folder / name))
        files += found
        labels += [classes.index(name)] * len(found)
    if not files:
        raise FileNotFoundError(f'{folder}: there are no images in folders of classes')
    return _files_pool(root, files, labels)


def _listed(root: Path, file: Path) -> Pool:
    """The images of an official split file; without labels the class is the parent folder."""
    if not file.exists():
        raise FileNotFoundError(f'{file} does not exist')
    index = {name: label for label, name in enumerate(folders_in(root))}
    files, labels = [], []
    for number, raw in raw_lines(file):
        try:
            _, image, label = parse_line(raw, number, file, index)
        except ImageListError:
            image = text_of(raw, number, file)
            check_path(image, number, file)
            label = index.get(Path(image).parts[0], -1)
        files.append(root / image)
        labels.append(label)
        if not files[-1].is_file():
            raise ImageListError(f'{file}, line {number}: {files[-1]} does not exist')
    return _files_pool(root, files, labels)


def _first(root: Path, *candidates: str) -> Path:
    found = next((root / name for name in candidates if (root / name).exists()), None)
    if found is None:
        raise FileNotFoundError(f'{root}: has none of {", ".join(candidates)}')
    return found


def _clevr(task: str, root: Path) -> dict[str, Pool]:
    """CLEVR_v1.0; its val split, whose scenes are public, is the test split of VTAB."""
    folder = _first(root, 'scenes', 'CLEVR_v1.0/scenes', 'clevr/CLEVR_v1.0/scenes').parent
    pools = {}
    for split, official in (('train', 'train'), ('test', 'val')):
        file = folder / 'scenes' / f'CLEVR_{official}_scenes.json'
        scenes = json.loads(file.read_text(encoding='utf-8'))['scenes']
        files = [folder / 'images' / official / scene['image_filename'] for scene in scenes]
        if task == 'clevr_count':
            labels = [clevr_count(len(scene['objects'])) for scene in scenes]
        else:
            labels = [
                clevr_distance([thing['pixel_coords'][2] for thing in scene['objects']])
                for scene in scenes
            ]
        pools[split] = _files_pool(folder, files, labels)
    return pools


def _kitti(root: Path) -> dict[str, Pool]:
    """KITTI's object detection: ``training/image_2/*.png`` and ``training/label_2/*.txt``."""
    folder = _first(root, 'image_2', 'training/image_2', 'Kitti/raw/training/image_2').parent
    files, labels = [], []
    for file in sorted((folder / 'image_2').glob('*.png')):
        annotations = folder / 'label_2' / f'{file.stem}.txt'
        rows = [line.split() for line in annotations.read_text().splitlines() if line.strip()]
        # Type, truncation, occlusion, angle, box (4), size (3), location x y z, rotation.
        labels.append(kitti_distance([float(row[13]) for row in rows if row[0] in KITTI_VEHICLES]))
        files.append(file)
    if not files:
        raise FileNotFoundError(f'{folder / "image_2"}: there are no .png files')
    return {'train': _files_pool(folder, files, labels)}


def _dsprites(task: str, root: Path) -> dict[str, Pool]:
    """The .npz file of the authors: images of 0 and 1, and classes of the six latent factors."""
    file = root if root.is_file() else next(iter(sorted(root.rglob('dsprites*.npz'))), None)
    if file is None:
        raise FileNotFoundError(f'{root}: there is no dsprites*.npz')
    try:
        with np.load(file, allow_pickle=False) as data:
            images, latents = data['imgs'], data['latents_classes']
    except (BadZipFile, EOFError, KeyError, MemoryError, ValueError) as error:
        raise ValueError(f"{file}: not dSprites' own file, or a damaged one ({error})") from error
    # Colour, shape, scale, orientation (40), x (32), y (32).
    column, values = (4, 32) if task == 'dsprites_loc' else (3, 40)
    labels = [sixteenth(int(value), values) for value in latents[:, column]]
    return {
        'train': Pool(
            labels,
            lambda index: Image.fromarray(images[index] * 255),
            lambda index: f'imgs[{index}]',
        )
    }


# torchvision -------------------------------------------------------------------------------------

# Task -> class, its arguments for each split, and where it keeps labels and file names.
_TORCHVISION = {
    'cifar': ('CIFAR100', {'train': {'train': True}, 'test': {'train': False}}, 'targets', None),
    'svhn': ('SVHN', {'train': {'split': 'train'}, 'test': {'split': 'test'}}, 'labels', None),
    'dtd': (
        'DTD',
        {'train': {'split': 'train'}, 'val': {'split': 'val'}, 'test': {'split': 'test'}},
        '_labels',
        '_image_files',
    ),
    'oxford_flowers102': (
        'Flowers102',
        {'train': {'split': 'train'}, 'val': {'split': 'val'}, 'test': {'split': 'test'}},
        '_labels',
        '_image_files',
    ),
    'oxford_iiit_pet': (
        'OxfordIIITPet',
        {'train': {'split': 'trainval'}, 'test': {'split': 'test'}},
        '_labels',
        '_images',
    ),
    'sun397': ('SUN397', {'train': {}}, '_labels', '_image_files'),
    'food-101': (
        'Food101',
        {'train': {'split': 'train'}, 'test': {'split': 'test'}},
        '_labels',
        '_image_files',
    ),
    'fgvc_aircraft': (
        'FGVCAircraft',
        {'train': {'split': 'train'}, 'val': {'split': 'val'}, 'test': {'split': 'test'}},
        '_labels',
        '_image_files',
    ),
}
_TORCHVISION['oxford_flowers'] = _TORCHVISION['oxford_flowers102']
_TORCHVISION['oxford_pets'] = _TORCHVISION['oxford_iiit_pet']
# Downloaded by torchvision, but read as folders: task -> where the folder is.
_TORCHVISION_FOLDERS = {
    'caltech101': ('caltech101/101_ObjectCategories', '101_ObjectCategories'),
    'eurosat': ('eurosat/2750', '2750'),
    'clevr_count': ('clevr', 'CLEVR_v1.0', 'scenes'),
    'clevr_dist': ('clevr', 'CLEVR_v1.0', 'scenes'),
    'kitti': ('Kitti/raw/training', 'training', 'image_2'),
}


def open_torchvision(task: str, root: Path) -> dict[str, Pool]:
    """Opens what torchvision downloaded: ``root`` is what its datasets were given as ``root``.

    Raises:
        FileNotFoundError: The dataset is not there.
        ValueError: torchvision has no such dataset, or not with what VTAB needs.
    """
    if task in _TORCHVISION_FOLDERS:
        found = _first(root, *_TORCHVISION_FOLDERS[task])
        return open_folder(task, root if found.name in ('scenes', 'image_2') else found)
    if task not in _TORCHVISION:
        known = ', '.join(sorted({*_TORCHVISION, *_TORCHVISION_FOLDERS}))
        raise ValueError(f'{task} cannot be read from a torchvision copy, only: {known}')
    from torchvision import datasets  # with everything it imports, slow

    name, splits, labels, files = _TORCHVISION[task]
    pools = {}
    for split, arguments in splits.items():
        try:
            dataset = getattr(datasets, name)(str(root), **arguments)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f'{root}: torchvision finds no {name} there: {" ".join(str(error).split())}'
            ) from error
        pools[split] = _torchvision_pool(dataset, getattr(dataset, labels), files, root, split)
    return pools


def _torchvision_pool(
    dataset: Any, labels: Sequence[int], files: str | None, root: Path, split: str
) -> Pool:
    if files is None:
        return Pool(
            [int(label) for label in labels],
            lambda index: dataset[index][0],
            lambda index: f'{split}[{index}]',
        )
    # In the order of their names: a folder is listed differently on every machine.
    order = sorted(range(len(labels)), key=lambda index: str(getattr(dataset, files)[index]))
    paths = [Path(getattr(dataset, files)[index]) for index in order]
    return _files_pool(root, paths, [int(labels[index]) for index in order])


# Hugging Face ------------------------------------------------------------------------------------


def open_huggingface(
    root: Path, image_column: str | None = None, label_column: str | None = None
) -> dict[str, Pool]:
    """Opens a copy of the Hugging Face ``datasets`` library on disk.

    Args:
        root: What ``save_to_disk`` wrote, or a folder with ``<split>*.parquet`` files.
        image_column: Column of the images; by default the only one of that type.
        label_column: Column of the labels; by default ``label`` or the only ClassLabel.

    Raises:
        ImportError: The library is not installed.
        ValueError: The folder is no such copy, or its columns or splits are not clear.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "reading Hugging Face copies needs the 'datasets' extra: pip install "
            "'gleam-mm[datasets]'"
        ) from error
    if not root.is_dir():
        raise FileNotFoundError(f'{root} does not exist')
    if (root / 'dataset_dict.json').is_file() or (root / 'state.json').is_file():
        loaded = datasets.load_from_disk(str(root))
        splits = dict(loaded) if isinstance(loaded, dict) else {'train': loaded}
    elif parquet := sorted(root.rglob('*.parquet')):
        splits = _parquet(datasets, parquet)
    else:
        raise ValueError(
            f'{root}: neither what save_to_disk writes (dataset_dict.json, state.json) nor .parquet'
        )
    pools = {
        split: _huggingface_pool(
            datasets, splits[name], f'{root}, split {name}', name, image_column, label_column
        )
        for split, name in splits_among(splits, root).items()
    }
    if not pools:
        raise ValueError(f'{root}: no split is called train, val or test: {", ".join(splits)}')
    return pools


def _parquet(datasets: Any, files: Sequence[Path]) -> dict[str, Any]:
    grouped: dict[str, list[str]] = {}
    for file in files:
        grouped.setdefault(file.stem.split('-')[0].split('.')[0].lower(), []).append(str(file))
    # The library converts to its own format first, in a folder that goes with this process.
    cache = tempfile.TemporaryDirectory(prefix='gleam-parquet-')
    loaded = {
        split: datasets.Dataset.from_parquet(names, cache_dir=cache.name)
        for split, names in grouped.items()
    }
    _KEPT.append(cache)
    return loaded


_KEPT: list[tempfile.TemporaryDirectory] = []


def _huggingface_pool(
    datasets: Any, split: Any, where: str, name: str, image: str | None, label: str | None
) -> Pool:
    features = split.features
    images = [key for key, value in features.items() if isinstance(value, datasets.Image)]
    labels = [key for key, value in features.items() if isinstance(value, datasets.ClassLabel)]
    image = image or (images[0] if len(images) == 1 else None)
    label = label or next((key for key in ('label', 'labels') if key in features), None)
    label = label or (labels[0] if len(labels) == 1 else None)
    for column, option in ((image, '--image-column'), (label, '--label-column')):
        if column not in features:
            raise ValueError(f'{where}: set {option} to one of: {", ".join(features)}')
    split = split.cast_column(image, datasets.Image(decode=False))
    values = split.with_format(None)[label]
    if any(not isinstance(value, int) for value in values):
        raise ValueError(f'{where}: column {label!r} holds no integers; set --label-column')

    def load(index: int) -> Image.Image:
        return Image.open(BytesIO(encoded(split[index][image])))

    return Pool(list(values), load, lambda index: f'{name}[{index}]')
