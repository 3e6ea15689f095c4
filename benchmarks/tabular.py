"""CSV files of what was measured: a row is a dataclass, or several beside each other."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gleam_mm.fileio import write_bytes


def write(path: Path, rows: Iterable[Sequence[Any]], *kinds: type) -> None:
    """Writes rows, whole or not at all; numbers with four digits behind the point.

    Args:
        path: The file.
        rows: Of each one an object of every kind.
        kinds: The dataclasses, whose fields make the columns.
    """
    text = io.StringIO()
    names = [field.name for kind in kinds for field in fields(kind)]
    writer = csv.DictWriter(text, names, lineterminator='\n')
    writer.writeheader()
    for row in rows:
        line = {name: value for part in row for name, value in asdict(part).items()}
        writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()})
    write_bytes(path, text.getvalue().encode())


def read(path: Path, *kinds: type) -> Iterator[tuple[Any, ...]]:
    """The rows of a file; none where there is no file."""
    if not path.is_file():
        return
    with path.open(encoding='utf-8', newline='') as file:
        for line in csv.DictReader(file):
            yield tuple(
                kind(**{f.name: _parsed(line[f.name], f.type) for f in fields(kind)})
                for kind in kinds
            )


def _parsed(text: str, kind: Any) -> object:
    if kind is bool:
        return text == 'True'
    if kind in (str, int, float):
        return kind(text)
    return float(text) if text else None
