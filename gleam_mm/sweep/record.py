"""The record of a benchmark: every planned training of its studies, as rows of a CSV."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from gleam_mm.errors import UserError

CSV, STUDIES = 'results.csv', 'studies.json'


@dataclass(frozen=True)
class Record:
    """A training that a study consists of.

    Attributes:
        study: Name of the study.
        phase: ``select`` (accuracy on val200) or ``final`` (accuracy on test).
        method: Name of the method or variant.
        dataset: Name of the dataset.
        seed: Seed of everything random.
        options: What changes the method's recipe, as ``name=value,name=value``.
        state: ``complete``, ``failed`` or ``waiting``; one that runs still waits for its end.
        accuracy: Top-1 in % with two decimals; None unless complete, like all that follows.
        parameters: Trained numbers, head excluded.
        seconds: Wall time of the training.
    """

    study: str
    phase: str
    method: str
    dataset: str
    seed: int
    options: str
    state: str
    accuracy: float | None
    parameters: int | None
    seconds: float | None


def read(path: Path) -> list[Record]:
    """Reads a record; of a file that does not exist, an empty one.

    Raises:
        UserError: The file is not such a record.
    """
    if not path.is_file():
        return []
    with path.open(encoding='utf-8', newline='') as file:
        reader = csv.DictReader(file)
        expected = [field.name for field in fields(Record)]
        if reader.fieldnames != expected:
            raise UserError(f'{path}: the columns must be {",".join(expected)}')
        try:
            return [
                Record(
                    **{
                        **row,
                        'seed': int(row['seed']),
                        'accuracy': float(row['accuracy']) if row['accuracy'] else None,
                        'parameters': int(row['parameters']) if row['parameters'] else None,
                        'seconds': float(row['seconds']) if row['seconds'] else None,
                    }
                )
                for row in reader
            ]
        except (TypeError, ValueError) as error:  # of too few or too many cells as well
            raise UserError(f'{path}, line {reader.line_num}: {error}') from error
