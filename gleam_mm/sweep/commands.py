"""The commands of ``tools/sweep.py``."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console

from gleam_mm import errors
from gleam_mm.output.escape import terminal
from gleam_mm.shell import command
from gleam_mm.sweep import configure, supervise
from gleam_mm.sweep import estimate as estimates
from gleam_mm.sweep import export as exports
from gleam_mm.sweep.cells import FAILED, RUNNING, WAITING, Cell
from gleam_mm.sweep.places import DATABASE, SWEEPS, NoStudyError, find
from gleam_mm.sweep.plan import Job, Sweep
from gleam_mm.sweep.status import counts, status
from gleam_mm.sweep.study import SweepStudy, begin_study, open_study


class Page(Protocol):
    """What shows a sweep while it runs."""

    file: Path

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def update(self, cells: Sequence[Cell]) -> None: ...


MakePage = Callable[[SweepStudy, Path], Page]
"""Makes the page of a sweep in its folder."""


def begin(args: argparse.Namespace, page: MakePage | None = None) -> None:
    """Begins a sweep, or joins it, and runs it."""
    with errors.setup():
        name, sweep = configure.make_sweep(settings_of(args))
        storage = args.storage or str(SWEEPS / name / DATABASE)
        configure.check(sweep)
        root = args.work_dir or _folder(name)
        study = begin_study(storage, name, sweep)
    _work(args, study, storage, root, page)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a sweep's file, over which flags win: of the options each by itself.

    A grid of the command line is that of every method, whatever grids of their own the file has.
    """
    settings = configure.read_file(args.file) if args.file else {}
    flags = {key: getattr(args, key, None) for key in configure.KEYS}  # some are only for files
    if args.grid is not None:
        flags.update(grid=configure.read_grid(args.grid), grids={})
    if args.seeds is not None:
        flags['seeds'] = configure.parse_seeds(args.seeds)
    options = settings.get('options')
    if args.options is not None and isinstance(options, dict):
        kept = {key: value for key, value in options.items() if key not in args.options}
        flags['options'] = {**kept, **args.options}  # merged last, over a whole that holds them
    return {**settings, **{key: value for key, value in flags.items() if value is not None}}


def resume(args: argparse.Namespace, page: MakePage | None = None) -> None:
    """Goes on with a sweep."""
    with errors.setup():
        study = open_study(args.study, args.name)
        storage = find(args.study)
        root = args.work_dir or _folder(study.name)
        configure.check(study.sweep)
    if args.retry_failed:
        print(f'{study.retry_failed()} failed trainings wait again')
    _work(args, study, storage, root, page)


def _work(
    args: argparse.Namespace, study: SweepStudy, storage: str, root: Path, page: MakePage | None
) -> None:
    """Runs workers until nothing is left."""
    gpus = configure.parse_gpus(args.gpus)
    workers = _workers(args.workers, max(1, len(gpus)))
    root = root.absolute()
    if page is None:
        cells = supervise.run(study, storage, root, workers, gpus)
    else:
        with page(study, root) as shown:
            print(f'page: {os.path.relpath(shown.file)}')
            cells = supervise.run(study, storage, root, workers, gpus, shown.update)
    Console().print(status(cells), soft_wrap=True)
    if counts(cells)[FAILED]:
        sys.exit(1)


def _folder(name: str) -> Path:
    """The folder of a study's trainings; its name may have come from anybody."""
    if Path(name).name != name or name in ('.', '..'):
        raise errors.UserError(f'{terminal(name)}: no name for a folder; give --work-dir')
    return SWEEPS / name


def _workers(given: int | None, default: int) -> int:
    if given is not None and given < 1:
        raise errors.UserError(f'--workers {given}: at least 1')
    return given or default


def tell_status(args: argparse.Namespace) -> None:
    """Tells how far a sweep is."""
    with errors.setup():
        study = open_study(args.study, args.name, read_only=True)
        Console().print(status(study.cells()), soft_wrap=True)


def estimate(args: argparse.Namespace) -> None:
    """Tells how long a sweep will take, or what is left of one."""
    workers = _workers(args.workers, 1)
    with errors.setup():
        sweep, jobs = _planned(args.sweep, args.name)
        rows = estimates.estimate(sweep, jobs, workers)
    Console().print(estimates.table(rows, workers), soft_wrap=True)


def _planned(name: str, study: str | None) -> tuple[Sweep, list[Job]]:
    """A sweep and those of its trainings that are still to be run; a study wins over a file.

    What a failed selection blocks is not to be run.
    """
    if Path(name).suffix != '.py':
        with contextlib.suppress(NoStudyError):
            opened = open_study(name, study, read_only=True)
            opened.check_options()
            left = [cell for cell in opened.cells() if cell.state in (WAITING, RUNNING)]
            return opened.sweep, [cell.job for cell in left if not cell.blocked]
    _, sweep = configure.make_sweep(configure.read_file(name))
    return sweep, [job for pair in sweep.pairs() for job in sweep.jobs(*pair)]


def export(args: argparse.Namespace) -> None:
    """Writes the tuned values as config files."""
    with errors.setup():
        study = open_study(args.study, args.name, read_only=True)
        files, missing = exports.export(study, args.folder)
    for file in files:
        print(command('train', os.path.relpath(file)))
    if missing:
        print(f'not chosen yet: {", ".join(missing)}')


WORKING = dict(run=begin, resume=resume)
COMMANDS = dict(WORKING, status=tell_status, estimate=estimate, export=export)
