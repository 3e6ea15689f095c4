"""The trainings of a sweep and what has become of each, by the trials that a study has of them."""

import datetime
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from gleam_mm.sweep.plan import Job, Sweep, options_text

MOST_LOST = 5  # a training that so many workers died of has failed

WAITING, RUNNING, COMPLETE, FAILED = 'waiting', 'running', 'complete', 'failed'


@dataclass(frozen=True)
class Trial:
    """One attempt at a training, as the study has it.

    Attributes:
        number: Its number in the study.
        job: The training.
        state: ``waiting``, ``running``, ``complete`` or ``failed``.
        accuracy: Top-1 in %, of a complete one.
        notes: What workers have noted, by name.
        start: When it began to run.
        end: When it ended.
    """

    number: int
    job: Job
    state: str
    accuracy: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    start: datetime.datetime | None = None
    end: datetime.datetime | None = None


@dataclass(frozen=True)
class Cell:
    """A training of the sweep and what has become of it.

    Attributes:
        job: The training.
        state: ``complete``, ``running``, ``failed`` or ``waiting``.
        trial: The trial that says so, if there is one.
        error: Why it failed.
        ready: Whether it may be run: not so a final training whose options are not known yet.
        blocked: Whether it never may, since a training that chooses its options has failed.
    """

    job: Job
    state: str
    trial: Trial | None = None
    error: str | None = None
    ready: bool = True
    blocked: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The grid's values."""
        return self.job.options

    @property
    def accuracy(self) -> float | None:
        """Top-1 in %, of a complete training."""
        return self.trial.accuracy if self.state == COMPLETE else None

    def attribute(self, name: str) -> Any:
        """What the worker noted under a name, or None."""
        return self.trial.notes.get(name) if self.trial else None


class Training(Protocol):
    """What :func:`best_point` reads: a :class:`Cell`, or what a study says of one."""

    @property
    def options(self) -> dict[str, Any]:
        """The grid's values."""

    @property
    def accuracy(self) -> float | None:
        """Top-1 in %, of a complete training."""


T = TypeVar('T', bound=Training)


@dataclass(frozen=True)
class Point(Generic[T]):
    """A point of a grid.

    Attributes:
        trainings: The complete ones, a seed each.
    """

    trainings: tuple[T, ...]

    @property
    def options(self) -> dict[str, Any]:
        """The grid's values."""
        return self.trainings[0].options

    @property
    def accuracy(self) -> float:
        """Top-1 in %, the mean over seeds."""
        return statistics.fmean(training.accuracy for training in self.trainings)


def cells_of(sweep: Sweep, trials: Iterable[Trial]) -> list[Cell]:
    """What has become of every training of a sweep.

    Args:
        sweep: The settings.
        trials: All trials of the study.

    Returns:
        The trainings, by method and dataset, the select phase before the final one.
    """
    by_key: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        by_key.setdefault(trial.job.key, []).append(trial)
    cells = []
    for method, dataset in sweep.pairs():
        selection = [
            _cell(job, by_key.get(job.key, [])) for job in sweep.select_jobs(method, dataset)
        ]
        options = best_options(selection)
        ready, blocked = options is not None, any(cell.state == FAILED for cell in selection)
        cells += selection
        cells += [
            _cell(job, by_key.get(job.key, []), ready, blocked)
            for job in sweep.final_jobs(method, dataset, options)
        ]
    return cells


def best_options(selection: Iterable[Cell]) -> dict[str, Any] | None:
    """The best point of a grid.

    Args:
        selection: All trainings of the select phase, of one method on one dataset.

    Returns:
        Options, ``{}`` without a select phase, and None where not all trainings are complete.
    """
    cells = list(selection)
    if any(cell.accuracy is None for cell in cells):
        return None
    best = best_point(cells)
    return best.options if best else {}


def best_point(trainings: Iterable[T]) -> Point[T] | None:
    """The point of a grid with the highest mean so far: of equally accurate ones the first.

    Args:
        trainings: Those of the select phase, of one method on one dataset. What has no accuracy
            yet does not count.

    Returns:
        None where none has one.
    """
    points: dict[str, list[T]] = {}
    for training in trainings:
        if training.accuracy is not None:
            points.setdefault(options_text(training.options), []).append(training)
    made = [Point(tuple(members)) for members in points.values()]
    return max(made, key=lambda point: point.accuracy, default=None)


def _cell(job: Job, trials: list[Trial], ready: bool = True, blocked: bool = False) -> Cell:
    live = [trial for trial in trials if trial.state != FAILED]
    if live:  # the rest are spares
        return Cell(live[0].job, live[0].state, live[0], ready=ready)
    if trials and (error := trials[-1].notes.get('error')):
        return Cell(job, FAILED, trials[-1], error, ready)
    if len(trials) >= MOST_LOST:
        error = f'{len(trials)} workers died while they ran it; is there enough memory?'
        return Cell(job, FAILED, trials[-1], error, ready)
    return Cell(job, WAITING, ready=ready, blocked=blocked)
