"""Starts workers, shows how the sweep goes on, and ends them cleanly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gleam_mm.engine.console_hook import on_terminal
from gleam_mm.errors import UserError
from gleam_mm.machine import cores
from gleam_mm.output.escape import rich_markup, terminal
from gleam_mm.output.tables import clock
from gleam_mm.sweep.cells import COMPLETE, FAILED, RUNNING, WAITING, Cell
from gleam_mm.sweep.plan import SELECT
from gleam_mm.sweep.status import counts, failure, remaining_seconds
from gleam_mm.sweep.study import SweepStudy
from gleam_mm.sweep.worker import identity

_POLL_SECONDS = 1.0
_MOST_POLL_SECONDS = 30.0  # on a machine that leaves this process little time, too
_MOST_SHOWN = 8  # trainings that run
_PATIENCE_SECONDS = 60  # for workers that were asked to stop
LOGS = 'workers'


def run(
    study: SweepStudy,
    storage: str,
    root: Path,
    workers: int,
    gpus: Sequence[str] = (),
    watch: Callable[[Sequence[Cell]], None] = lambda cells: None,
) -> list[Cell]:
    """Runs a sweep until nothing is left to run.

    Args:
        study: The sweep.
        storage: Path or URL of its storage, for the workers.
        root: Where trainings and logs are written.
        workers: How many processes train at the same time on this machine.
        gpus: GPUs to share among them, as ``CUDA_VISIBLE_DEVICES`` names them.
        watch: Called every second or so with all trainings as they are.

    Returns:
        All trainings as they stand at the end.

    Raises:
        KeyboardInterrupt: A signal that ends a run, see :mod:`gleam_mm.interrupts`; no worker is
            left, and what was running waits again.
        UserError: All workers ended before their time.
    """
    view = _View(study, workers)
    study.register()  # takes a while the first time: ten milliseconds a training
    processes = [_Process(study, storage, root, gpus, workers, index) for index in range(workers)]
    with view:
        try:
            for process in processes:
                process.start()
            while any(process.alive() for process in processes):
                started = time.monotonic()
                _replace_dead(study, processes, view)
                cells = study.cells()
                view.update(cells)
                watch(cells)
                # Looking at a large study takes a while: that is left to the workers mostly.
                pause = max(_POLL_SECONDS, 10 * (time.monotonic() - started))
                time.sleep(min(pause, _MOST_POLL_SECONDS))
            _replace_dead(study, processes, view)
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):  # of a terminal that is gone
                view.say('stopping: what is running goes back to waiting (Ctrl-C again: at once)')
            _stop(study, processes)
            with contextlib.suppress(OSError):
                view.update(study.cells())
            raise
        except BaseException:
            _stop(study, processes)
            raise
        cells = study.cells()
        view.update(cells)
    left = [cell for cell in cells if cell.ready and cell.state in (WAITING, RUNNING)]
    if left:  # of workers, too, that somebody has ended, with status 0
        raise UserError(
            f'all workers have ended too early, {len(left)} trainings are left; see '
            f'{processes[0].log}'
        )
    return cells


def threads(workers: int) -> int:
    """How many threads each of the workers of a machine has: OMP_NUM_THREADS, or its share."""
    return int(os.environ.get('OMP_NUM_THREADS') or max(1, cores() // workers))


class _Process:
    """A worker process, which may be started several times."""

    def __init__(
        self,
        study: SweepStudy,
        storage: str,
        root: Path,
        gpus: Sequence[str],
        workers: int,
        index: int,
    ) -> None:
        self.told = json.dumps(
            {
                'storage': storage,
                'study': study.name,
                'sweep': study.sweep.to_dict(),
                'root': str(root),
                'parent': os.getpid(),
            }
        )
        host = identity(0)['host']
        self.log = root / LOGS / f'{host}-{os.getpid()}-{index}.log'
        self.broken = False
        self.identity: dict | None = None
        self._process: subprocess.Popen | None = None
        self._environment = dict(os.environ)
        for variable in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
            self._environment.setdefault(variable, str(threads(workers)))
        self._environment.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
        self._environment['PYTHONSAFEPATH'] = '1'  # the current folder's modules hide no others
        if gpus:
            self._environment['CUDA_VISIBLE_DEVICES'] = gpus[index % len(gpus)]

    def start(self) -> None:
        """Starts the process, in a session of its own: Ctrl-C reaches only this one."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open('ab') as log:
            self._process = subprocess.Popen(
                [sys.executable, '-m', 'gleam_mm.sweep.worker'],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        self.identity = identity(self._process.pid)
        # One that has ended before it read a word is told of as any other.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as told:
            told.write(self.told.encode())

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit status."""
        return None if self._process is None else self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, to a process that runs."""
        if self.alive():
            self._process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Waits for the end; returns whether it has come."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.alive()


def _replace_dead(study: SweepStudy, processes: Sequence[_Process], view: '_View') -> None:
    """Gives the trials of killed workers to others at once, and starts new workers."""
    for process in processes:
        if process.alive() or not process.code or process.broken:
            continue
        how = f'signal {-process.code}' if process.code < 0 else f'status {process.code}'
        study.end_trials_of([process.identity])
        study.register()
        if process.code < 0 and study.has_run(process.identity):
            process.start()
            view.say(f'a worker died ({how}); its training waits again, and a new worker starts')
        else:  # not of a training: the next one would die as well
            process.broken = True
            view.say(f'a worker ended with {how}; see {process.log}')


def _stop(study: SweepStudy, processes: Sequence[_Process]) -> None:
    """Ends all workers. What they were running waits again."""
    try:
        for process in processes:
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for process in processes:
            if process.identity is not None:
                process.wait(max(0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        pass
    stubborn = [process for process in processes if process.alive()]
    for process in stubborn:
        process.send(signal.SIGKILL)
        process.wait(_PATIENCE_SECONDS)
    if stubborn:
        study.end_trials_of([process.identity for process in stubborn])
        study.register()


class _View(contextlib.AbstractContextManager):
    """One line a finished training; on a terminal also a bar with the ETA and what is running."""

    def __init__(self, study: SweepStudy, workers: int) -> None:
        self._workers = workers
        self._host = identity(0)['host']
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if on_terminal() else None
        cells = study.cells()
        self._told = {cell.job.key for cell in cells if cell.state in (COMPLETE, FAILED)}
        number = counts(cells)
        before = f', {number[COMPLETE]} of them are done' if number[COMPLETE] else ''
        failed = f', {number[FAILED]} have failed' if number[FAILED] else ''
        self.say(f'{terminal(study.name)}: {len(cells)} trainings{before}{failed}; in {study.url}')

    def __enter__(self) -> '_View':
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line, above the bar."""
        self._console.print(Text(text), soft_wrap=True)

    def update(self, cells: Sequence[Cell]) -> None:
        """Tells what is new."""
        for cell in cells:
            if cell.state in (COMPLETE, FAILED) and cell.job.key not in self._told:
                self._told.add(cell.job.key)
                self.say(f'[{len(self._told)}/{len(cells)}] {self._line(cell)}')
        if self._live is not None:
            self._live.update(self._picture(cells), refresh=True)

    def _line(self, cell: Cell) -> str:
        if cell.state == FAILED:
            return f'{terminal(cell.job)}  FAILED: {failure(cell)}'
        split = 'val' if cell.job.phase == SELECT else 'test'
        host = (cell.attribute('worker') or {}).get('host')
        where = '' if host == self._host else f'  on {terminal(host)}'
        took = clock(cell.attribute('seconds') or 0)
        return f'{terminal(cell.job)}  {split} {cell.accuracy:.2f} %  in {took}{where}'

    def _picture(self, cells: Sequence[Cell]) -> Group:
        number = counts(cells)
        done = number[COMPLETE] + number[FAILED]
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column()
        head.add_column(ratio=1)
        head.add_column()
        failed = f', {number[FAILED]} failed' if number[FAILED] else ''
        head.add_row(
            f'{done}/{len(cells)} trainings{failed}',
            ProgressBar(total=len(cells), completed=done),
            f'ETA {clock(remaining_seconds(cells, self._workers))}',
        )
        running = Table.grid(padding=(0, 2))
        now = [cell for cell in cells if cell.state == RUNNING]
        for cell in now[:_MOST_SHOWN]:
            epochs = cell.attribute('progress')
            running.add_row(
                f'  {rich_markup(cell.job)}',
                f'epoch {epochs[0]}/{epochs[1]}' if epochs else 'starting',
            )
        if len(now) > _MOST_SHOWN:
            running.add_row(f'  and {len(now) - _MOST_SHOWN} more', '')
        return Group(head, running)
