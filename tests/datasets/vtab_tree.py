"""Miniature datasets in the true layouts, for any test: ``from vtab_tree import make_vtab_tree``.

The lists are short and the images small, but folders, files, lines and numbers of classes are those
of VTAB-1K and of the few-shot FGVC sets. An image's colours tell its class, so that training learns
something.
"""

import colorsys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from gleam_mm.datasets.vtab import VTAB_TASKS

FGVC_CLASSES = {
    'fgvc_aircraft': 100,
    'food-101': 101,
    'oxford_flowers': 102,
    'oxford_pets': 37,
    'stanford_cars': 196,
}


def draw(label: int, classes: int, size: int, rng: np.random.Generator) -> Image.Image:
    """An image whose two halves are coloured by the label, with noise."""
    hue = label / classes
    halves = [colorsys.hsv_to_rgb(hue, 0.8, 0.9), colorsys.hsv_to_rgb((hue * 7) % 1, 0.6, 0.5)]
    image = np.repeat(np.array(halves)[:, None, None] * 255, -(-size // 2), axis=1)
    image = np.broadcast_to(image.reshape(-1, 1, 3)[:size], (size, size, 3))
    image = image + rng.normal(0, 12, (size, size, 3))
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def make_vtab_tree(
    root: Path | str,
    tasks: Iterable[str] | None = None,
    train: int = 8,
    val: int = 4,
    test: int = 6,
    size: int = 32,
) -> Path:
    """Writes VTAB-1K in miniature: ``<root>/<task>/<split>.txt`` and JPEG files.

    Args:
        root: The folder to fill, which a config calls ``data/vtab-1k``.
        tasks: Names of task folders; all 19 by default.
        train: Lines of ``train800.txt``.
        val: Lines of ``val200.txt``; ``train800val200.txt`` has both.
        test: Lines of ``test.txt``.
        size: Pixels a side.

    Returns:
        ``root``.
    """
    for task in VTAB_TASKS if tasks is None else tasks:
        classes = VTAB_TASKS[task].num_classes
        train_labels, val_labels = _labels(train, classes), _labels(val, classes)
        splits = {
            'train800': train_labels,
            'val200': val_labels,
            'train800val200': train_labels + val_labels,
            'test': _labels(test, classes),
        }
        rng = np.random.default_rng(list(VTAB_TASKS).index(task))
        for split, labels in splits.items():
            folder = Path(root) / task / 'images' / split
            folder.mkdir(parents=True, exist_ok=True)
            lines = []
            for index, label in enumerate(labels):
                draw(label, classes, size, rng).save(folder / f'{index:06}.jpg')
                lines.append(f'images/{split}/{index:06}.jpg {label}\n')
            (Path(root) / task / f'{split}.txt').write_text(''.join(lines))
    return Path(root)


def make_fgvc_tree(
    root: Path | str,
    tasks: Iterable[str] | None = None,
    shots: Iterable[int] = (1, 2),
    seeds: Iterable[int] = (0,),
    classes: int | None = None,
    val: int = 4,
    test: int = 6,
    size: int = 32,
) -> Path:
    """Writes the few-shot FGVC sets in miniature.

    Args:
        root: The folder to fill, which a config calls ``data/fgvc``.
        tasks: Names of dataset folders; all 5 by default.
        shots: Images a class, a list each.
        seeds: Seeds, a list each.
        classes: Classes that have training images; all by default.
        val: Lines of ``val_meta.list``.
        test: Lines of ``test_meta.list``.
        size: Pixels a side.

    Returns:
        ``root``.
    """
    for task in FGVC_CLASSES if tasks is None else tasks:
        total = FGVC_CLASSES[task]
        rng = np.random.default_rng(total)
        folder = Path(root) / task
        (folder / 'annotations').mkdir(parents=True, exist_ok=True)
        (folder / 'images').mkdir(exist_ok=True)

        def add(name: str, label: int, folder=folder, total=total, rng=rng) -> str:
            path = folder / 'images' / name
            if not path.exists():
                draw(label, total, size, rng).save(path)
            return f'{name} {label}\n'

        trained = range(classes or total)
        for seed in seeds:
            for shot in shots:
                lines = [
                    add(f'class {label} of {seed}_{number}.jpg', label)
                    for label in trained
                    for number in range(shot)
                ]
                if task == 'oxford_pets' and shot == 1:
                    lines = [line for line in lines for _ in range(2)]  # as the published list
                name = f'train_meta.list.num_shot_{shot}.seed_{seed}'
                (folder / 'annotations' / name).write_text(''.join(lines))
        for split, number in (('val', val), ('test', test)):
            lines = [
                add(f'{split}_{index}.jpg', label)
                for index, label in enumerate(_labels(number, total))
            ]
            (folder / 'annotations' / f'{split}_meta.list').write_text(''.join(lines))
    return Path(root)


def _labels(number: int, classes: int) -> list[int]:
    """The classes in turn, and the last one at the end."""
    return [index % classes for index in range(number - 1)] + [classes - 1] if number else []
