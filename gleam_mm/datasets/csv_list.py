"""Lists of images as tables: a CSV file with a line for each."""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmpretrain.datasets import BaseDataset

from gleam_mm.arguments import check
from gleam_mm.datasets.image_files import ImageFiles
from gleam_mm.datasets.lists import ImageListError, check_path, content_of
from gleam_mm.messages import hint_at, listed
from gleam_mm.registry import DATASETS

__all__ = ['CSVDataset', 'Table', 'read_table']

Target = Literal['class', 'classes', 'number']

SEPARATOR = ';'
"""Between several classes of an image."""

DELIMITERS = (',', ';', '\t')
"""Between columns, as spreadsheets write them."""

IMAGE_COLUMNS = (
    *('image', 'img', 'picture', 'path', 'file', 'filename', 'file_name', 'filepath'),
    *('file_path', 'image_path', 'image_file'),
)
"""What the column with the paths is called, where nobody says; the first wins over the others."""

LABEL_COLUMNS = ('label', 'class', 'class_name', 'category', 'species')
"""The same of the column with the label."""


class Table(NamedTuple):
    """A CSV file that was read.

    Attributes:
        columns: The names of its columns.
        rows: Its lines, each with its number; of quotes over several lines, that of the last.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]


def read_table(file: str | Path, delimiter: str | None = None) -> Table:
    """Reads a CSV file.

    Args:
        file: The file, in UTF-8.
        delimiter: Between columns; by default that of :data:`DELIMITERS` which the first line has
            most often.

    Raises:
        FileNotFoundError: There is no such file.
        ImageListError: A line is malformed, and the message has its number; or two columns have
            one name.
    """
    try:
        text = content_of(file).decode()
    except UnicodeDecodeError as error:
        raise ImageListError(f'{file}: not UTF-8: {error}') from None
    if delimiter is None:
        first = next((line for line in StringIO(text) if line.strip()), '')
        delimiter = max(DELIMITERS, key=first.count)
    columns: list[str] = []
    rows = []
    reader = csv.reader(StringIO(text, newline=None), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if not ''.join(row).strip() and len(row) < 2:
                continue  # a blank line
            if not columns:
                columns = row
                twice = [name for name, times in Counter(columns).items() if name and times > 1]
                if twice:
                    raise ImageListError(
                        f'{file}, line {reader.line_num}: several columns are called '
                        f'{listed(twice)}; give each a name of its own'
                    )
                continue
            if len(row) != len(columns):
                raise ImageListError(
                    f'{file}, line {reader.line_num}: not {len(columns)} columns, as the first '
                    f'line has, between which there is {delimiter!r}'
                )
            rows.append((reader.line_num, dict(zip(columns, row, strict=True))))
    except csv.Error as error:
        raise ImageListError(f'{file}, line {reader.line_num}: {error}') from None
    return Table(columns, rows)


@DATASETS.register_module()
class CSVDataset(ImageFiles, BaseDataset):
    """Images that a CSV file lists, with a class, several classes or numbers each.

    The first line has the names of the columns. With ``target='class'`` a label is the name of a
    class; with ``'classes'`` it is several, as ``robin;wren``, or none; with ``'number'`` it is a
    number, to be met by :class:`~gleam_mm.models.RegressionHead`, and of several ``label_column`` a
    number each. Classes are in the order of their names, of the whole file, whichever ``split`` is
    read: or by their value, where all are numbers.

    Args:
        ann_file: The CSV file.
        data_root: The folder that images are relative to; by default that of the file.
        image_column: The column with the paths; by default ``image``, or else the only one that is
            called as such columns are (:data:`IMAGE_COLUMNS`).
        label_column: The column with the label, by default ``label`` or as such columns are called
            (:data:`LABEL_COLUMNS`); the columns, for several numbers.
        target: What a label is.
        split: Reads the lines alone that have this in the column ``split_column``.
        split_column: Its name.
        delimiter: Between columns; by default the comma, semicolon or tab, whichever the first line
            has most often.
        **kwargs: Further arguments of :class:`ImageFiles` and MMPretrain's ``BaseDataset``.

    Raises:
        ArgumentError: ``target`` is something else.
        FileNotFoundError: There is no such file.
        ImageListError: A column is missing, or a line malformed; the message has its number.
    """

    def __init__(
        self,
        ann_file: str | Path,
        data_root: str | None = None,
        image_column: str | None = None,
        label_column: str | Sequence[str] | None = None,
        target: Target = 'class',
        split: str | None = None,
        split_column: str = 'split',
        delimiter: str | None = None,
        **kwargs: Any,
    ) -> None:
        check(target, Target, 'target')
        several = label_column is not None and not isinstance(label_column, str)
        if several and not label_column:
            raise ValueError('label_column=[]: name a column, or leave it out')
        if several and len(label_column or ()) != 1 and target != 'number':
            raise ValueError(f'label_column={label_column!r}: several are for target="number"')
        self.image_column, self.label_column = image_column, label_column
        self.split, self.split_column = split, split_column
        self.target, self.delimiter = target, delimiter
        self.folder = Path(ann_file).parent if data_root is None else Path(data_root)
        super().__init__(ann_file=str(ann_file), **kwargs)

    def load_data_list(self) -> list[dict]:
        """Reads the file: ``img_path``, and ``gt_label`` or ``gt_score`` of each line."""
        rows = self._rows()
        read = {'class': self._class, 'classes': self._several, 'number': self._numbers}[
            self.target
        ]
        self._name_classes(rows)
        samples = [
            {'img_path': self._path(number, row), **read(number, row)}
            for number, row in rows
            if self.split is None or row[self.split_column] == self.split
        ]
        if not samples:
            of = '' if self.split is None else f' with {self.split_column}={self.split!r}'
            raise ImageListError(f'{self.ann_file}: no lines{of}')
        return samples

    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        """The lines with their numbers, after their columns were found."""
        columns, rows = read_table(self.ann_file, self.delimiter)
        self.image_column = self._column('image_column', self.image_column, IMAGE_COLUMNS, columns)
        given = self.label_column
        several = [given] if given is None or isinstance(given, str) else given
        self.label_columns = [
            self._column('label_column', name, LABEL_COLUMNS, columns) for name in several
        ]
        if self.split is not None:
            self._column('split_column', self.split_column, (), columns)
        return rows

    def _column(
        self, option: str, name: str | None, usual: Sequence[str], columns: Sequence[str]
    ) -> str:
        """The column that is meant: the one that is named, or that has a usual name alone."""
        first = name or usual[0]
        if first in columns:
            return first
        found = [] if name else [column for column in columns if column.lower() in usual]
        if len(found) == 1:
            return found[0]
        raise ImageListError(
            f'{self.ann_file}: no column {first!r}{hint_at(first, columns)}; it has '
            f'{", ".join(columns)}: say which one is meant by {option}=, of each split '
            f'(train_dataloader.dataset.{option}=..., and so of val and test), or where these are '
            'several columns, by delimiter='
        )

    def _name_classes(self, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
        if self.CLASSES is not None:
            return
        if self.target == 'number':
            self._metainfo['classes'] = tuple(self.label_columns)
            return
        labels = (row[self.label_columns[0]] for _, row in rows)
        names = {name for label in labels for name in self._names(label)}
        numbers = all(name.isdecimal() for name in names)
        # Of one value, 1 and 01, by their text: a set has another order in each process.
        self._metainfo['classes'] = tuple(sorted(names, key=_by_value if numbers else None))

    def _names(self, label: str) -> list[str]:
        several = label.split(SEPARATOR) if self.target == 'classes' else [label]
        return [name.strip() for name in several if name.strip()]

    def _class(self, number: int, row: dict[str, str]) -> dict[str, Any]:
        names = self._names(row[self.label_columns[0]])
        if not names:
            self._refuse(number, f'{self.label_columns[0]} is empty')
        return {'gt_label': self._index(number, names[0])}

    def _several(self, number: int, row: dict[str, str]) -> dict[str, Any]:
        names = self._names(row[self.label_columns[0]])
        return {'gt_label': [self._index(number, name) for name in names]}

    def _index(self, number: int, name: str) -> int:
        if name not in self.CLASSES:
            self._refuse(number, f'{name!r} is no class{hint_at(name, self.CLASSES)}')
        return self.CLASSES.index(name)

    def _numbers(self, number: int, row: dict[str, str]) -> dict[str, Any]:
        values = []
        for column in self.label_columns:
            try:
                value = float(row[column])
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                self._refuse(number, f'{column}={row[column]!r} is no number')
            values.append(value)
        return {'gt_score': values}

    def _path(self, number: int, row: dict[str, str]) -> str:
        image = row[self.image_column]
        check_path(image, number, self.ann_file, absolute=True)
        return str(self.folder / image)

    def _listed(self) -> Iterator[tuple[int, str]]:
        for number, row in self._rows():
            yield number, self._path(number, row)

    def _refuse(self, number: int, why: str) -> None:
        raise ImageListError(f'{self.ann_file}, line {number}: {why}')


def _by_value(name: str) -> tuple[int, str]:
    return int(name), name
