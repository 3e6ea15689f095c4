"""Predictions as lines and files."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gleam_mm.fileio import write_bytes
from gleam_mm.inference.pictures import Prediction, is_folder, pictures_in
from gleam_mm.output import escape


def files_of(pictures: Iterable[str]) -> list[str]:
    """The files that somebody names: pictures, and those in folders.

    Raises:
        FileNotFoundError: A folder has no pictures.
    """
    files = []
    for name in pictures:
        files += pictures_in(name) if is_folder(name) else [name]
    return files


Told = Sequence[Prediction] | Mapping[str, Sequence[Prediction]]
"""The best classes of a picture; of several tasks, by their names."""


def line(file: str, told: Told) -> str:
    """A picture's best classes in a line."""
    best = ', '.join(f'{label} {score:.3f}' for label, score in _in_a_row(told))
    return f'{file}: {best}'


def _in_a_row(told: Told) -> list[Prediction]:
    """Predictions of several tasks with the task in front of the class."""
    if not isinstance(told, Mapping):
        return list(told)
    return [
        Prediction(f'{task}/{label}', score)
        for task, found in told.items()
        for label, score in found
    ]


def write(path: Path, told: Mapping[str, Told]) -> None:
    """Writes predictions by the name of the file.

    Args:
        path: A ``.csv`` file, which gets a row for each class of a picture; or a ``.json`` file, a
            mapping of files to lists of ``{"label": ..., "score": ...}``.
        told: The best classes of each picture, the best first.
    """
    if path.suffix == '.json':
        plain = {
            file: [best._asdict() for best in _in_a_row(found)] for file, found in told.items()
        }
        text = json.dumps(plain, indent=2, ensure_ascii=False) + '\n'
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator='\n')
        writer.writerow(['file', 'rank', 'label', 'score'])
        for file, found in told.items():
            for rank, (label, score) in enumerate(_in_a_row(found), 1):
                cells = (file, rank, label, score)
                writer.writerow([escape.csv_cell(cell) for cell in cells])
        text = buffer.getvalue()
    write_bytes(path, text.encode('utf-8', 'surrogateescape'))
