"""The tasks of MiniVTAB: their groups and classes, and their images, drawn once and then cached."""

import hashlib
import io
import logging
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log

from gleam_mm.fileio import write_bytes
from gleam_mm.minivtab import natural, specialized, structured
from gleam_mm.minivtab.canvas import Draws, Streams, quantise

CACHE_VARIABLE = 'GLEAM_CACHE'
VERSION = 1  # of the generators; another one draws other images
_IMAGES = 3000  # of a drawn task: 800, 200 and 2,000
_BATCH = 200  # images drawn together; the result does not depend on it


class MiniTask(NamedTuple):
    """A task of MiniVTAB: its group, number of classes, size of the test split, class names."""

    group: str
    num_classes: int
    test_size: int
    classes: tuple[str, ...]


def _drawn(group: str, classes: tuple[str, ...]) -> MiniTask:
    return MiniTask(group, len(classes), _IMAGES - 1000, classes)


MINI_TASKS = {
    'digits': MiniTask('natural', 10, 797, natural.DIGITS),
    'textures': _drawn('natural', natural.TEXTURES),
    'letters': _drawn('natural', natural.LETTERS),
    'cells': _drawn('specialized', specialized.CELLS),
    'land': _drawn('specialized', specialized.LAND),
    'defects': _drawn('specialized', specialized.DEFECTS),
    'count': _drawn('structured', structured.COUNT),
    'distance': _drawn('structured', structured.DISTANCE),
    'orientation': _drawn('structured', structured.ORIENTATION),
}

_DRAW: dict[str, Callable[[np.ndarray, Draws, int], np.ndarray]] = {
    'textures': natural.draw_textures,
    'letters': natural.draw_letters,
    'cells': specialized.draw_cells,
    'land': specialized.draw_land,
    'defects': specialized.draw_defects,
    'count': structured.draw_count,
    'distance': structured.draw_distance,
    'orientation': structured.draw_orientation,
}

#: SHA-256 of a drawn task's images, first 16 digits. Other sizes are drawn too, but not checked.
CHECKSUMS: dict[tuple[str, int], str] = {
    ('textures', 32): '27888f58129b47ba',
    ('letters', 32): 'fa2e3a06937bb390',
    ('cells', 32): 'a659bf297642e28d',
    ('land', 32): '710701d6a704d816',
    ('defects', 32): 'de8129bb1c068de7',
    ('count', 32): '1d462f8ee458e2a0',
    ('distance', 32): '11b619a0eed674bd',
    ('orientation', 32): '8ef329c92ceebcc8',
}


@lru_cache(maxsize=2)
def load(task: str, img_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All images of a task, before splitting.

    Args:
        task: A key of :data:`MINI_TASKS`.
        img_size: Pixels a side.

    Returns:
        RGB images, uint8 ``(N, img_size, img_size, 3)``, and labels, int64 ``(N,)``. Both are
        shared between callers: do not write into them.
    """
    if task == 'digits':
        return natural.load_digits(img_size)
    images, digest = _read(task, img_size) or _make(task, img_size)
    if digest != CHECKSUMS.get((task, img_size), digest):
        warnings.warn(
            f'MiniVTAB: the images of {task!r} differ from those that published results are on '
            f'(checksum {digest}, expected {CHECKSUMS[task, img_size]}): results do not compare',
            stacklevel=2,
        )
    return images, _labels(task)


def draw(task: str, img_size: int, indices: np.ndarray) -> np.ndarray:
    """Draws some of a task's images, uint8 ``(len(indices), img_size, img_size, 3)``.

    Image ``i`` follows from the task's name, ``i`` and :data:`VERSION`, nothing else. At another
    size the scene is the same.
    """
    streams = Streams([f'MiniVTAB {VERSION} {task} {index}' for index in indices])
    return quantise(_DRAW[task](_labels(task)[indices], streams, img_size))


def cache_folder() -> Path:
    """Where drawn tasks are kept: ``$GLEAM_CACHE``, or else ``gleam-mm`` in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser() / 'minivtab'
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'gleam-mm' / 'minivtab'


def _labels(task: str) -> np.ndarray:
    """Every class in turn."""
    return np.arange(_IMAGES, dtype=np.int64) % MINI_TASKS[task].num_classes


def _prefix(task: str, img_size: int) -> str:
    return f'{task}-{img_size}-v{VERSION}-'


def _digest(images: np.ndarray) -> str:
    return hashlib.sha256(images).hexdigest()[:16]


def _read(task: str, img_size: int) -> tuple[np.ndarray, str] | None:
    """A task from the cache, if it is there and its checksum is the one in its name.

    Where the checksum is known, other images of the task are left alone: a generator drew them
    before it was what it is now.
    """
    prefix = _prefix(task, img_size)
    for file in sorted(cache_folder().glob(f'{prefix}{CHECKSUMS.get((task, img_size), "*")}.npy')):
        try:
            images = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError):
            continue  # damaged: it is drawn again
        whole = images.dtype == np.uint8 and images.shape == (_IMAGES, img_size, img_size, 3)
        if whole and prefix + _digest(images) == file.stem:
            return images, _digest(images)
    return None


def _make(task: str, img_size: int) -> tuple[np.ndarray, str]:
    """Draws a task and puts it into the cache, which need not be writable."""
    print_log(f'MiniVTAB: drawing {task} once, a matter of seconds', logger='current')
    batches = np.split(np.arange(_IMAGES), range(_BATCH, _IMAGES, _BATCH))
    images = np.concatenate([draw(task, img_size, indices) for indices in batches])
    digest = _digest(images)
    data = io.BytesIO()
    np.save(data, images)
    file = cache_folder() / f'{_prefix(task, img_size)}{digest}.npy'
    try:
        write_bytes(file, data.getvalue())
    except OSError as error:
        print_log(
            f'MiniVTAB: {file} cannot be written ({error}); {CACHE_VARIABLE} names another folder',
            logger='current',
            level=logging.WARNING,
        )
    return images, digest
