"""Signals that end a run, from the floor that catches them up to the tool that ends by one.

A run ends in one line, with nothing half done and with the status that shells know. Ctrl-C
(SIGINT), SIGTERM and SIGHUP raise :class:`Stopped` where the run stands, but for what must not be
cut in two, which is put into :func:`uninterrupted`.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = tuple(
    getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)
)
_SOON = 0.05  # seconds until a signal that got lost is sent again
_blocks = 0  # how many blocks that must not be interrupted the run is in
_waiting: int | None = None  # the signal that came meanwhile


class Stopped(KeyboardInterrupt):
    """A signal has asked this process to end.

    Attributes:
        number (signal.Signals): Which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


@contextmanager
def raised() -> Iterator[None]:
    """Raises :class:`Stopped` within it, and behind it ignores signals: the process is ending."""
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        global _waiting
        if os.getpid() != owner:  # a data loader's worker, forked with this handler
            if number != signal.SIGINT:  # which a terminal sends to all: the owner ends them
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif _blocks:
            _waiting = number
        else:
            raise Stopped(number)

    # What is ignored stays so: SIGHUP under nohup, SIGINT in the background of a script.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, stop)
    try:
        with delivered(Stopped, lambda error: error.number):
            yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def delivered(kind: type[BaseException], number_of: Callable[[Any], int]) -> Iterator[None]:
    """Sends a signal once more where Python has dropped what its handler raised.

    A handler may be called in the middle of a finalizer or a weak reference's callback. Python
    prints what is raised there, and goes on.

    Args:
        kind: What handlers raise.
        number_of: The signal that is to be sent, by what was dropped.
    """
    before = sys.unraisablehook

    def dropped(told: Any) -> None:
        if isinstance(told.exc_value, kind):
            number = number_of(told.exc_value)
            threading.Timer(_SOON, os.kill, (os.getpid(), number)).start()  # not from in here
        else:
            before(told)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts off signals until its end."""
    global _blocks, _waiting
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        if not _blocks and _waiting is not None:
            number, _waiting = _waiting, None
            raise Stopped(number)
