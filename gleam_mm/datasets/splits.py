"""What splits are called, and which folders are some."""

import re
from collections.abc import Iterable
from pathlib import Path

from gleam_mm.datasets.folder import is_hidden, pictures_below
from gleam_mm.fileio import listing

__all__ = ['SPLIT_NAMES', 'folders_in', 'sounds_like_split', 'splits_among', 'splits_in']

SPLIT_NAMES = {
    'train': ('train', 'trainval', 'training'),
    'val': ('val', 'valid', 'validation', 'dev'),
    'test': ('test', 'testing'),
}
"""Our names of the splits -> what they are called, in whichever case."""

_SPLITS = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def splits_among(names: Iterable[str], of: str | Path) -> dict[str, str]:
    """Finds the names of splits: our names of them -> the names that they have.

    Args:
        names: Names, some of them perhaps of splits.
        of: What has them, for the message.

    Raises:
        ValueError: A split has two names, of which one would not be read.
    """
    names = list(names)
    lower = {name.lower() for name in names}
    both = {'train', 'val'} <= {_SPLITS.get(name) for name in lower - {'trainval'}}
    found: dict[str, str] = {}
    for name in names:
        if both and name.lower() == 'trainval':  # which is these two once more
            continue
        split = _SPLITS.get(name.lower())
        if split in found:
            raise ValueError(
                f'{of}: {found[split]} and {name} both name the split {split}: leave one of them'
            )
        if split is not None:
            found[split] = name
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def splits_in(folder: Path) -> dict[str, str]:
    """Finds the folders of splits in a folder: our names of them -> the names that they have.

    A class may be called ``train`` as well. A split is told from it by what is inside: a split has
    folders of classes. Where no folder of such a name has any, and other folders have pictures, all
    of them are classes.

    Raises:
        ValueError: A split has two folders, of which one would not be read.
    """
    folders = folders_in(folder)
    named = [name for name in folders if name.lower() in _SPLITS]
    others = [name for name in folders if name.lower() not in _SPLITS]
    has_classes = any(folders_in(folder / name) for name in named)
    if not has_classes and any(any(pictures_below(folder / name)) for name in others):
        return {}
    return splits_among(named, folder)


def sounds_like_split(name: str) -> bool:
    """Whether a name has that of a split among its words: ``train2017``, ``test_set``."""
    return not _SPLITS.keys().isdisjoint(re.findall('[a-z]+', name.lower()))


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, in their order, without hidden ones."""
    return sorted(name for name, is_file in listing(folder) if not (is_file or is_hidden(name)))
