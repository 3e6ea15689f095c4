"""A training that this process runs: signs of life while it does, and what it came to."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from gleam_mm.sweep.plan import Job
from gleam_mm.sweep.storage import DATABASE_ERRORS, patiently


class LostTrialError(Exception):
    """The trial was given to another worker, since this one was silent for too long."""


class Claim:
    """A trial that this process runs.

    Args:
        storage: Optuna's storage.
        trial_id: The trial's number in it.
        job: What to train.
    """

    def __init__(self, storage: RDBStorage, trial_id: int, job: Job) -> None:
        self._storage, self._trial_id, self.job = storage, trial_id, job

    def take(self, worker: Mapping[str, Any]) -> bool:
        """Makes the trial this process's own; False where another one was faster."""
        # A sign of life first: a worker that is killed in between would never be missed.
        patiently(lambda: self._storage.record_heartbeat(self._trial_id))
        try:
            # After a lost connection the answer may be lost too. Then the trial goes on as that of
            # a dead worker, which is safe.
            if not self._storage.set_trial_state_values(self._trial_id, TrialState.RUNNING):
                return False
        except (UpdateFinishedTrialError, *DATABASE_ERRORS):
            return False
        self.note(**{'worker': dict(worker)})
        return True

    def beat(self) -> None:
        """Gives a sign of life.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        if self._storage.get_trial(self._trial_id).state != TrialState.RUNNING:
            raise LostTrialError(f'{self.job} was given to another worker')
        self._storage.record_heartbeat(self._trial_id)

    def note(self, **attributes: Any) -> None:
        """Notes what can be stored as JSON beside the trial.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        with self._losing():
            for name, value in attributes.items():
                patiently(
                    lambda name=name, value=value: self._storage.set_trial_user_attr(
                        self._trial_id, name, value
                    )
                )

    def complete(self, accuracy: float, **attributes: Any) -> None:
        """Ends the trial with its accuracy in %.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        self.note(**attributes)
        self._end(TrialState.COMPLETE, [accuracy])

    def fail(self, error: str, **attributes: Any) -> None:
        """Ends the trial with what went wrong.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        self.note(**{**attributes, 'error': error})
        self._end(TrialState.FAIL)

    def release(self) -> None:
        """Gives the trial back: it waits again, for any worker."""
        with contextlib.suppress(LostTrialError):
            self._end(TrialState.WAITING)

    def _end(self, state: TrialState, values: list[float] | None = None) -> None:
        with self._losing(unless=state):
            patiently(lambda: self._storage.set_trial_state_values(self._trial_id, state, values))

    @contextlib.contextmanager
    def _losing(self, unless: TrialState | None = None) -> Iterator[None]:
        """Tells a trial that was ended by others from one whose end was only not acknowledged."""
        try:
            yield
        except UpdateFinishedTrialError as error:
            if patiently(lambda: self._storage.get_trial(self._trial_id)).state != unless:
                raise LostTrialError(f'{self.job} was given to another worker') from error
