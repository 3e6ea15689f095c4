"""The page of a sweep that runs, which a browser loads again by itself; it needs no server."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gleam_mm.errors import describe
from gleam_mm.fileio import write_bytes
from gleam_mm.output import escape
from gleam_mm.report import page
from gleam_mm.report.build import facts, links, parts, section
from gleam_mm.report.trials import Study, choosing, of_sweep
from gleam_mm.sweep.cells import COMPLETE, FAILED, Cell
from gleam_mm.sweep.plan import FINAL, SELECT

if TYPE_CHECKING:  # it imports Optuna
    from gleam_mm.sweep.study import SweepStudy

PAGE = 'live.html'
_REFRESH_SECONDS = 10
_SHARE = 20  # of the time, at most one part in so many goes into drawing
_LOCKED = (
    'Options are still being chosen. Each number is the top-1 accuracy on a validation split; the '
    'test split stays closed on this page until every training that chooses is done.'
)


class LivePage:
    """Writes the page after each training that ends, all at once.

    While options are still being chosen it shows accuracies on the validation split, and no number
    of the test split; after that what :mod:`gleam_mm.report.build` reports. A page that cannot be
    written is told once, and ends no sweep.

    Args:
        study: The sweep.
        folder: Where ``live.html`` is written.
    """

    def __init__(self, study: 'SweepStudy', folder: Path) -> None:
        self._study, self.file = study, folder / PAGE
        self._shown: set[str] | None = None
        self._next = 0.0
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes the page as it stays: browsers no longer load it again."""
        self._write(None)

    def update(self, cells: Sequence[Cell]) -> None:
        """Writes the page if a training has ended since, and there was time to.

        Args:
            cells: All trainings as they are now.
        """
        ended = {cell.job.key for cell in cells if cell.state in (COMPLETE, FAILED)}
        started = time.monotonic()
        if ended != self._shown and started >= self._next:
            self._shown = ended
            self._write(_REFRESH_SECONDS)
            now = time.monotonic()
            self._next = now + _SHARE * (now - started)

    def _write(self, refresh: int | None) -> None:
        if self._broken:
            return
        try:
            write_bytes(self.file, build(of_sweep(self._study), refresh).encode())
        except Exception as error:  # whatever it is, days of training are worth more
            self._broken = True
            print(escape.terminal(f'{self.file}: not written any more: {describe(error)}'))


def build(study: Study, refresh: int | None = None) -> str:
    """The page of a study as it is now.

    Args:
        study: The study.
        refresh: Seconds after which a browser loads it again; by default it does not.

    Raises:
        UserError: The study consists of no trainings.
    """
    made = parts([choosing(study)], SELECT) if study.chooses else parts([study], FINAL)
    state = 'as it ended' if refresh is None else f'loaded again every {refresh} seconds'
    lead = (
        f'<p class="lead">As of {time.strftime("%F, %T")}, {state}.</p>\n'
        f'{page.overrides_notice([study])}\n{links(made)}'
    )
    return page.page(
        f'GLEAM-MM: {study.name}',
        lead,
        facts([study]),
        map(section, made),
        _LOCKED if study.chooses else page.TESTED,
        refresh,
    )
