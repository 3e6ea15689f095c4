"""Lists of images as tables: a CSV file with a line for each."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from mmpretrain.datasets import BaseDataset

from gleam_mm.arguments import check
from gleam_mm.datasets.image_files import ImageFiles
from gleam_mm.datasets.lists import ImageListError, check_path, raw_lines
from gleam_mm.messages import hint_at
from gleam_mm.registry import DATASETS

__all__ = ['CSVDataset']

Target = Literal['class', 'classes', 'number']

SEPARATOR = ';'
"""Between several classes of an image."""


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
        image_column: The column with the paths.
        label_column: The column with the label; the columns, for several numbers.
        target: What a label is.
        split: Reads the lines alone that have this in the column ``split_column``.
        split_column: Its name.
        delimiter: Between columns.
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
        image_column: str = 'image',
        label_column: str | Sequence[str] = 'label',
        target: Target = 'class',
        split: str | None = None,
        split_column: str = 'split',
        delimiter: str = ',',
        **kwargs: Any,
    ) -> None:
        check(target, Target, 'target')
        self.image_column, self.split, self.split_column = image_column, split, split_column
        self.label_columns = [label_column] if isinstance(label_column, str) else [*label_column]
        if len(self.label_columns) != 1 and target != 'number':
            raise ValueError(f'label_column={label_column!r}: several are for target="number"')
        self.target, self.delimiter = target, delimiter
        self.folder = Path(ann_file).parent if data_root is None else Path(data_root)
        super().__init__(ann_file=str(ann_file), **kwargs)

    def load_data_list(self) -> list[dict]:
        """Reads the file: ``img_path``, and ``gt_label`` or ``gt_score`` of each line."""
        rows = list(self._rows())
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

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """The lines with their numbers; of a file with quotes over several lines, the last."""
        text = b'\n'.join(line for _, line in raw_lines(self.ann_file))
        try:
            reader = csv.DictReader(StringIO(text.decode()), delimiter=self.delimiter, strict=True)
            wanted = [self.image_column, *self.label_columns]
            wanted += [] if self.split is None else [self.split_column]
            for column in wanted:
                if column not in (names := reader.fieldnames or []):
                    raise ImageListError(
                        f'{self.ann_file}: no column {column!r}{hint_at(column, names)}; it has '
                        f'{", ".join(names)}'
                    )
            for row in reader:
                if None in row or None in row.values():
                    self._refuse(reader.line_num, f'not {len(reader.fieldnames or [])} columns')
                yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise ImageListError(f'{self.ann_file}: not UTF-8: {error}') from None
        except csv.Error as error:
            raise ImageListError(f'{self.ann_file}: {error}') from None

    def _name_classes(self, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
        if self.CLASSES is not None:
            return
        if self.target == 'number':
            self._metainfo['classes'] = tuple(self.label_columns)
            return
        labels = (row[self.label_columns[0]] for _, row in rows)
        names = {name for label in labels for name in self._names(label)}
        numbers = all(name.isdecimal() for name in names)
        key: Callable[[str], Any] = int if numbers else str
        self._metainfo['classes'] = tuple(sorted(names, key=key))

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
