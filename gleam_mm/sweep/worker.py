"""A worker: a process that claims trainings of a sweep and runs them, one after another."""

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from gleam_mm.errors import UserError, describe
from gleam_mm.fileio import write_bytes
from gleam_mm.interrupts import delivered
from gleam_mm.output import escape
from gleam_mm.sweep import training
from gleam_mm.sweep.cells import RUNNING, WAITING
from gleam_mm.sweep.claim import Claim, LostTrialError
from gleam_mm.sweep.plan import Sweep
from gleam_mm.sweep.study import MISSED_BEATS, SweepStudy, open_study

ERROR_FILE = 'error.txt'
_POLL_SECONDS = 1.0


class Interrupted(BaseException):
    """The worker was asked to stop."""


class Worker:
    """Runs trainings until none is left, or until SIGTERM or SIGINT.

    Args:
        study: The sweep.
        root: Folder for the trainings' folders.
        parent: The process that started this one. When it is gone, the worker stops.
    """

    def __init__(self, study: SweepStudy, root: Path, parent: int | None = None) -> None:
        self._study, self._root = study, root
        self._parent = os.getppid() if parent is None else parent
        self.identity = identity(os.getpid())
        self._stop = threading.Event()
        self._interruptible = False
        self._interrupting = False  # Interrupted is on its way

    def run(self) -> None:
        """Runs trainings. Signals are handled meanwhile, so this is for the main thread."""
        with self._signals():
            while not self._stop.is_set() and os.getppid() == self._parent:
                self._study.register()
                if self._stop.is_set():
                    break
                claim = self._study.claim(self.identity)
                if claim is not None:
                    self._run(claim)
                elif any(
                    cell.state == RUNNING or (cell.state == WAITING and cell.ready)
                    for cell in self._study.cells()
                ):
                    self._stop.wait(_POLL_SECONDS)  # others may die, or unlock final trainings
                else:
                    break

    def _run(self, claim: Claim) -> None:
        job = claim.job
        folder = self._root / job.folder
        print(f'{time.strftime("%F %T")} {job}', flush=True)
        try:
            claim.note(log=str(folder))
            with Pulse(claim, self._study.sweep.heartbeat, self._parent) as pulse:
                outcome = self._train(claim, folder, pulse)
            claim.complete(**outcome._asdict())
        except Interrupted:
            claim.release()
        except LostTrialError as error:
            print(error, flush=True)
        except (Exception, SystemExit) as error:
            if self._stop.is_set():
                # A bare except makes of Interrupted what it likes: MMEngine's, where it formats a
                # config, a SyntaxError. Should the training be broken, it will fail next time.
                claim.release()
                return
            folder.mkdir(parents=True, exist_ok=True)
            text = traceback.format_exc().encode(errors='backslashreplace')
            write_bytes(folder / ERROR_FILE, text)
            print(traceback.format_exc(), flush=True)
            with contextlib.suppress(LostTrialError):
                kind = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
                claim.fail(kind + describe(error))
        else:
            (folder / ERROR_FILE).unlink(missing_ok=True)

    def _train(self, claim: Claim, folder: Path, pulse: 'Pulse') -> training.Outcome:
        def on_iteration(epoch: int, epochs: int) -> None:
            if self._stop.is_set():
                raise Interrupted
            pulse.check(epoch, epochs)

        self._interruptible = True
        try:
            if self._stop.is_set():
                raise Interrupted
            return training.train(
                self._study.sweep,
                claim.job,
                folder,
                self._study.identity,
                on_iteration,
                lambda fingerprint: self._study.check_backbone(claim, fingerprint),
            )
        finally:
            self._interruptible = False

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        process = os.getpid()

        def stop(number: int, frame: FrameType | None) -> None:
            if os.getpid() != process:  # a fork of this process: a worker of a data loader
                os._exit(128 + number)
            self._stop.set()
            if self._interruptible and not self._interrupting:
                self._interrupting = True
                raise Interrupted

        def lost(_: Interrupted) -> int:
            self._interrupting = False
            return signal.SIGTERM

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with delivered(Interrupted, lost):
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Pulse:
    """Gives signs of life while a training runs, and stops the process when its parent is gone.

    Args:
        claim: The trial.
        interval: Seconds between signs of life.
        parent: The process that started this one.
    """

    def __init__(self, claim: Claim, interval: float, parent: int) -> None:
        self._claim, self._interval = claim, interval
        self._last = time.time()
        self._lost: LostTrialError | None = None
        self._epochs: tuple[int, int] | None = None
        self._noted: tuple[int, int] | None = None
        self._parent = parent
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='pulse', daemon=True)

    def __enter__(self) -> 'Pulse':
        self._beat()  # here first, so that data loaders never fork while a thread imports
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()

    def check(self, epoch: int, epochs: int) -> None:
        """To be called often by the training.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        self._epochs = (epoch, epochs)
        # A process that was stopped, or a laptop that slept, must not go on as if nothing was.
        if time.time() - self._last > MISSED_BEATS * self._interval:
            self._beat()
        if self._lost is not None:
            raise self._lost

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self._interval)):
            if os.getppid() != self._parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if time.time() - self._last >= self._interval:
                self._beat()

    def _beat(self) -> None:
        try:
            self._claim.beat()
            if self._epochs != self._noted:
                self._noted = self._epochs
                self._claim.note(progress=list(self._noted))
            self._last = time.time()
        except LostTrialError as error:
            self._lost = error
        except Exception as error:  # the database may be away for a while; the training goes on
            print(f'no sign of life could be given: {describe(error)}', flush=True)


def identity(process: int) -> dict[str, str | int]:
    """What tells a worker from all others."""
    return {'host': socket.gethostname(), 'pid': process}


def main() -> None:
    """The process: reads what to do from standard input, as JSON."""
    escape.unencodable_on_stdout()
    told = json.load(sys.stdin)
    sys.path.append(str(Path.cwd()))  # for modules of the user's own, named in custom_imports
    study = open_study(told['storage'], told['study'], known=Sweep.from_dict(told['sweep']))
    gc.freeze()  # what is imported stays: no collection between trainings looks through it
    Worker(study, Path(told['root']), told['parent']).run()


if __name__ == '__main__':
    main()
