"""From studies to the record: reads them, and notes what a table of accuracies leaves out."""

import datetime
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import claims
import records
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.machine import cores, processor
from gleam_mm.sweep.places import DATABASE, SWEEPS
from gleam_mm.sweep.plan import FINAL, Job, Sweep
from gleam_mm.sweep.study import open_study
from gleam_mm.sweep.supervise import threads
from gleam_mm.version import __version__

PACKAGES = ('torch', 'mmengine', 'mmpretrain')


def present() -> list[str]:
    """The studies of the benchmark that ``work_dirs/sweeps`` has.

    Raises:
        UserError: It has none.
    """
    known = (*claims.STUDIES, *claims.TUNED)
    found = [name for name in known if (SWEEPS / name / DATABASE).is_file()]
    if not found:
        raise UserError(f"{SWEEPS} has no study {' or '.join(known)}: 'make bench' runs them")
    return found


def collect(storages: Sequence[str], workers: int, folder: Path) -> list[tuple[str, int, int]]:
    """Brings the record up to date.

    Args:
        storages: Names of sweeps, paths of SQLite files, or URLs of databases.
        workers: How many workers trained on this machine.
        folder: Where ``results.csv`` and ``studies.json`` are.

    Returns:
        For each study its name, and how many of its trainings are complete and planned.

    Raises:
        UserError: A study cannot be read, is another run than the one that is recorded, or two of
            them have the same name.
    """
    found, described = {}, {}
    for storage in storages:
        opened = open_study(storage, read_only=True)
        if opened.name in found:
            raise UserError(
                f'{storage}: a study {opened.name} was read from another storage already, and a '
                'study is recorded as a whole; collect the one that counts'
            )
        variants = {name: variant.options for name, variant in opened.sweep.variants.items()}
        found[opened.name] = records.of_study(opened.name, opened.results(), variants)
        described[opened.name] = {
            'collected': datetime.date.today().isoformat(),
            **_settings(opened.sweep),
            **_machine(workers),
        }
    table, notes = folder / records.CSV, folder / records.STUDIES
    merged = records.merge(records.read(table), found)
    known = records.read_json(notes) or {}
    records.write(table, merged)
    write_bytes(
        notes, (json.dumps({**known, **described}, indent=2, sort_keys=True) + '\n').encode()
    )
    return [
        (name, sum(row.accuracy is not None for row in rows), len(rows))
        for name, rows in found.items()
    ]


def _settings(sweep: Sweep) -> dict[str, Any]:
    """What trainings of a sweep have in common, and the learning rates of its final ones."""
    first = sweep.methods[0]
    cfg = _config(sweep, first)
    optimizer = cfg.optim_wrapper
    mixed = 'Amp' in optimizer.get('type', '')
    return {
        'backbone': sweep.backbone,
        'epochs': cfg.train_cfg.max_epochs,
        'batch_size': cfg.train_dataloader.batch_size,
        'dtype': f'{optimizer.get("dtype", "float16")} autocast' if mixed else 'float32',
        'options': dict(sweep.options),
        'rates': {
            method: _config(sweep, method).optim_wrapper.optimizer.lr
            for method in sweep.methods
            # Where the grid has it, each task has one of its own.
            if sweep.final and records.RATE not in sweep.grid.get(method, {})
        },
    }


def _config(sweep: Sweep, method: str) -> Config:
    """The config of a method's final trainings, without a grid's options, on the first dataset."""
    dataset = sweep.datasets[0]
    job = Job(FINAL, method, dataset, sweep.seeds[0])
    return recipes.load(sweep.recipe(method, dataset), sweep.config_options(job))


def _machine(workers: int) -> dict[str, Any]:
    """The machine and the software, as they are now."""
    return {
        'gleam_mm': __version__,
        'commit': _commit(),
        'python': platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        'processor': processor(),
        'cores': cores(),
        'workers': workers,
        'threads': threads(workers),
    }


def _commit() -> str | None:
    """The commit that is checked out, with ``+`` where files that it has are changed."""

    def git(*arguments: str) -> str:
        call = ['git', '-C', str(records.FOLDER), *arguments]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git(
            'status', '--porcelain', '--untracked-files=no', '--', ':/gleam_mm', ':/configs'
        )
        return git('rev-parse', '--short', 'HEAD') + ('+' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return None
