"""The record of the benchmark: every planned training of its studies, as rows of a CSV."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.sweep.cells import COMPLETE, FAILED, WAITING
from gleam_mm.sweep.plan import FINAL, options_text
from gleam_mm.sweep.record import CSV, STUDIES, Record, read
from gleam_mm.sweep.results import Result

__all__ = [
    'COMPLETE',
    'CSV',
    'FAILED',
    'FOLDER',
    'RATE',
    'STUDIES',
    'WAITING',
    'Record',
    'merge',
    'of_study',
    'parameters',
    'rate_of',
    'read',
    'read_json',
    'scores',
    'write',
]

FOLDER = Path(__file__).parent
RATE = 'optim_wrapper.optimizer.lr'  # an option, as sweeps name it


def read_json(path: Path) -> Any:
    """What a JSON file beside a record has, or None where there is none.

    Raises:
        UserError: It is no JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error


def of_study(
    study: str, results: Iterable[Result], variants: Mapping[str, Mapping] | None = None
) -> list[Record]:
    """The records of a study.

    Args:
        study: Its name.
        results: Its trainings.
        variants: By name of a variant the options that it gives its method.
    """
    variants = variants or {}
    return [
        Record(
            study=study,
            phase=result.phase,
            method=result.method,
            dataset=result.dataset,
            seed=result.seed,
            options=options_text({**variants.get(result.method, {}), **result.options}),
            state=result.state if result.state in (COMPLETE, FAILED) else WAITING,
            accuracy=None if result.accuracy is None else round(result.accuracy, 2),
            parameters=result.parameters,
            seconds=None if result.seconds is None else round(result.seconds, 1),
        )
        for result in results
    ]


def merge(recorded: Sequence[Record], found: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Brings the record up to date with the studies of this machine.

    A study is taken as a whole, so that its rows are always those of one run: one that is found
    replaces its recorded rows, and the rows of all others stay.

    Args:
        recorded: The record.
        found: Name of a study -> its trainings as they are now.

    Raises:
        UserError: A study has fewer complete trainings than are recorded: it is another run.
    """
    for study, rows in found.items():
        before = sum(row.study == study and row.accuracy is not None for row in recorded)
        now = sum(row.accuracy is not None for row in rows)
        if now < before:
            raise UserError(
                f'{study}: {CSV} has {before} complete trainings, the study here {now}; go on with '
                f'the sweep, or remove its rows from {CSV} first if they are to be replaced'
            )
    kept = [row for row in recorded if row.study not in found]
    return kept + [row for rows in found.values() for row in rows]


def write(path: Path, records: Iterable[Record]) -> None:
    """Writes a record, sorted, so that the same trainings always give the same bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow([field.name for field in fields(Record)])
    for row in sorted(
        records, key=lambda r: (r.study, r.phase, r.method, r.dataset, r.seed, r.options)
    ):
        values = asdict(row)
        for name, digits in (('accuracy', 2), ('seconds', 1)):
            values[name] = '' if values[name] is None else f'{values[name]:.{digits}f}'
        writer.writerow(['' if value is None else value for value in values.values()])
    write_bytes(path, buffer.getvalue().encode())


def scores(records: Iterable[Record]) -> dict[str, dict[tuple[str, int], float]]:
    """Method -> task and seed -> accuracy, of complete final trainings.

    Of a training that several studies have, that of the first one counts.
    """
    found: dict[str, dict[tuple[str, int], float]] = {}
    for row in records:
        if row.phase == FINAL and row.accuracy is not None:
            found.setdefault(row.method, {}).setdefault((row.dataset, row.seed), row.accuracy)
    return found


def parameters(records: Iterable[Record]) -> dict[str, int]:
    """Method -> trained numbers, head excluded; the largest, should tasks differ."""
    found: dict[str, int] = {}
    for row in records:
        if row.parameters is not None:
            found[row.method] = max(row.parameters, found.get(row.method, 0))
    return found


def rate_of(row: Record) -> float:
    """The learning rate among a training's options.

    Raises:
        UserError: There is none.
    """
    found = re.search(rf'(?:^|,){re.escape(RATE)}=([^,]+)', row.options)
    if found is None:
        raise UserError(f'{row.study}: {row.method} on {row.dataset} has no {RATE} in its options')
    return float(found[1])
