"""What a dataset is that somebody has, told by its path: configs of its splits."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gleam_mm.datasets.csv_list import read_table
from gleam_mm.datasets.folder import pictures_below
from gleam_mm.datasets.image_files import warn
from gleam_mm.datasets.splits import (
    SPLIT_NAMES,
    folders_in,
    sounds_like_split,
    splits_among,
    splits_in,
)
from gleam_mm.messages import listed

__all__ = ['Source', 'source_of']

HELD_OUT = 0.2
"""The share of the training images that validation gets, where it has none of its own."""

_CALLED = f'they are called {", ".join(name for names in SPLIT_NAMES.values() for name in names)}'


class Source(NamedTuple):
    """Configs of the datasets of a source, without pipelines.

    Attributes:
        dataset: The name in ``configs/_base_/datasets`` that a recipe has it under.
        train: What is trained on.
        val: What is validated on: a split of its own, or a part that ``train`` leaves out.
        test: What is tested on; ``val`` where there is no test split.
    """

    dataset: str
    train: dict[str, Any]
    val: dict[str, Any]
    test: dict[str, Any]


def source_of(data: str | Path, hold_out: float = HELD_OUT) -> Source:
    """Finds the splits of a dataset.

    Args:
        data: A folder of ``train/<class>/*.jpg`` and, where there are any, ``val`` and ``test``,
            also by their other names (:data:`~gleam_mm.datasets.splits.SPLIT_NAMES`), or of
            ``<class>/*.jpg``; a ``.csv`` file, whose column ``split``, where it has one, says
            which split a line is of; the ``.tar`` files of WebDataset, as a pattern or their
            folder; or what ``save_to_disk`` of Hugging Face's ``datasets`` has written.
        hold_out: The share that is held out for validation, where it has no split of its own.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is none of these, has no training split, or splits that cannot be told.
    """
    path = Path(data).expanduser()
    if str(data).endswith('.tar'):
        return _tars(str(path), hold_out)
    if not path.exists():
        raise FileNotFoundError(f'{data}: no such folder or file of pictures')
    if path.is_file():
        if path.suffix.lower() not in ('.csv', '.tsv'):
            raise ValueError(f'{data}: give a folder, a .csv or .tsv file, or .tar files')
        return _table(path, hold_out)
    if (path / 'dataset_dict.json').is_file() or (path / 'state.json').is_file():
        return _saved(path, hold_out)
    if any(path.glob('*.tar')):
        return _folder_of_tars(path, hold_out)
    return _folder(path, hold_out)


def _source(
    dataset: str, splits: dict[str, dict[str, Any]], common: dict[str, Any], hold_out: float
) -> Source:
    """A source of what its splits (``train``, and perhaps ``val`` and ``test``) differ in."""
    train, val = {**common, **splits['train']}, splits.get('val')
    if val is None:
        train = {**train, 'hold_out': hold_out}
        held = {**train, 'take_held_out': True}
    else:
        held = {**common, **val}
    test = {**common, **splits['test']} if 'test' in splits else held
    return Source(dataset, train, held, test)


def _folder(path: Path, hold_out: float) -> Source:
    folders = folders_in(path)
    if not folders:
        raise ValueError(f'{path}: has no folders of classes, <class>/<image>')
    named = splits_in(path)
    if named and 'train' not in named:
        raise ValueError(f'{path}: has {listed(folders)}, but no folder train')
    if named:
        _tell_ignored(path, [f for f in folders if any(pictures_below(path / f))], named)
    elif alike := [f for f in folders if sounds_like_split(f) and folders_in(path / f)]:
        warn(
            f'{path}: took {listed(alike)} as folders of a class each, though they have folders; '
            f'where they are splits, rename them: {_CALLED}'
        )
    splits = {split: dict(data_prefix=name) for split, name in named.items()} or {'train': {}}
    return _source('folder', splits, dict(type='CustomDataset', data_root=str(path)), hold_out)


def _table(path: Path, hold_out: float) -> Source:
    common: dict[str, Any] = dict(type='CSVDataset', ann_file=str(path))
    columns, rows = read_table(path)
    column = next((column for column in columns if column.lower() == 'split'), None)
    if column is None:
        return _source('csv', {'train': {}}, common, hold_out)
    found: dict[str, int] = {}
    for number, row in rows:
        found.setdefault(row[column], number)
    for name, number in found.items():
        if not splits_among([name], path):
            raise ValueError(
                f'{path}, line {number}: {column}={name!r} is no split; {_CALLED}: name it so, or '
                'call the column otherwise if it tells something else'
            )
    splits = splits_among(found, path)
    if 'train' not in splits:
        raise ValueError(f'{path}: its column {column} has {", ".join(found)}, but no train')
    for name in found.keys() - {*splits.values()}:
        number = sum(row[column] == name for _, row in rows)
        warn(
            f'{path}: ignored {number:,} lines of {column}={name}, which is train and val once '
            'more, and the file has both; call those train that are to be trained on'
        )
    common['split_column'] = column
    return _source(
        'csv', {split: dict(split=name) for split, name in splits.items()}, common, hold_out
    )


def _saved(path: Path, hold_out: float) -> Source:
    names = [f.name for f in path.iterdir() if (f / 'state.json').is_file()]
    named = splits_among(names, path)
    if names and 'train' not in named:
        raise ValueError(f'{path}: has the splits {", ".join(sorted(names))}, but no train')
    _tell_ignored(path, names, named)
    splits = {split: dict(split=name) for split, name in named.items()}
    common = dict(type='HuggingFaceDataset', path=str(path))
    return _source('huggingface', splits or {'train': {}}, common, hold_out)


def _folder_of_tars(path: Path, hold_out: float) -> Source:
    shards: dict[str, list[str]] = {}
    for file in sorted(path.glob('*.tar')):
        shards.setdefault(re.split(r'[-_.]', file.name)[0], []).append(str(file))
    named = splits_among(shards, path)
    if not named:
        return _tars(str(path / '*.tar'), hold_out)
    if 'train' not in named:
        raise ValueError(f'{path}: has .tar files of {listed([*shards])}, but none of train')
    _tell_ignored(path, shards, named)
    splits = {split: dict(shards=shards[stem]) for split, stem in named.items()}
    return _source('webdataset', splits, dict(type='TarDataset'), hold_out)


def _tars(pattern: str, hold_out: float) -> Source:
    splits: dict[str, dict[str, Any]] = {'train': dict(shards=pattern)}
    return _source('webdataset', splits, dict(type='TarDataset'), hold_out)


def _tell_ignored(path: Path, names: Iterable[str], splits: Mapping[str, str]) -> None:
    """Warns of what lies beside the splits and is none."""
    ignored = sorted({*names} - {*splits.values()})
    again = [name for name in ignored if splits_among([name], path)]
    if again:
        warn(
            f'{path}: ignored {listed(again)}, which is train and val once more, and both are there'
        )
    others = [name for name in ignored if name not in again]
    if others:
        warn(f'{path}: ignored {listed(others)}, which are no splits; {_CALLED}')
