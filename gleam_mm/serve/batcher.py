"""Pictures of many requests in common passes."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from torch import Tensor

from gleam_mm.bank import AdapterBank, Prepared


class BusyError(RuntimeError):
    """No picture is taken at present."""


class _Waiting(NamedTuple):
    picture: Prepared
    future: 'Future[Tensor]'


class Batcher:
    """Gathers what requests ask for, and lets a bank compute it in one thread.

    A pass takes what waits by then, of whatever tasks. While it runs the next ones gather, so that
    passes grow as there is more to do; a lone picture waits for others for a moment.

    Args:
        bank: The bank.
        most: The most pictures of a pass.
        wait: How long the first picture of a pass waits for others, in seconds.
        waiting: How many pictures wait at most.
        passed: Is told after each pass how many pictures it had, and how many seconds it took.
    """

    def __init__(
        self,
        bank: AdapterBank,
        most: int,
        wait: float,
        waiting: int,
        passed: Callable[[int, float], None],
    ) -> None:
        self._bank = bank
        self._most = most
        self._wait = wait
        self._passed = passed
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(waiting)
        self._submitting = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name='gleam-batcher', daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether pictures are computed."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return self._waiting.qsize()

    def submit(self, picture: Prepared) -> 'Future[Tensor]':
        """Asks for the scores of a picture.

        Raises:
            BusyError: Too many wait already, or nothing is computed any more.
        """
        future: Future[Tensor] = Future()
        with self._submitting:
            if not self.alive:
                raise BusyError('the server is shutting down: ask another one')
            try:
                self._waiting.put_nowait(_Waiting(picture, future))
            except queue.Full:
                raise BusyError(
                    f'{self._waiting.maxsize} pictures are waiting already: come back in a second'
                ) from None
        return future

    def close(self) -> None:
        """Answers what waits, and ends."""
        with self._submitting:
            self._closed = True
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ends = self._gather(first)
            self._answer(batch)
            if ends:
                return

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """The pictures of a pass, and whether nothing comes after them."""
        batch, until = [first], time.monotonic() + self._wait
        while len(batch) < self._most:
            try:
                item = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        batch = [item for item in batch if item.future.set_running_or_notify_cancel()]
        if batch:
            self._compute(batch)

    def _compute(self, batch: Sequence[_Waiting]) -> None:
        start = time.monotonic()
        try:
            scores = self._bank.scores([item.picture for item in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for item in batch:  # what is wrong with one of them is not the others' fault
                self._compute([item])
            return
        self._passed(len(batch), time.monotonic() - start)
        for item, found in zip(batch, scores, strict=True):
            item.future.set_result(found)
