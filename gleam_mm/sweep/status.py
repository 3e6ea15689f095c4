"""What a person wants to know of a sweep: how far it is, what is best so far, how long it takes."""

import datetime
import statistics
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gleam_mm.output.escape import rich_markup, terminal
from gleam_mm.output.tables import clock
from gleam_mm.sweep.cells import COMPLETE, FAILED, RUNNING, WAITING, Cell, best_point
from gleam_mm.sweep.groups import over_seeds
from gleam_mm.sweep.plan import FINAL, SELECT, options_text


def counts(cells: Sequence[Cell]) -> Counter:
    """How many trainings are in each state."""
    return Counter(cell.state for cell in cells)


def remaining_seconds(cells: Sequence[Cell], workers: int = 0) -> float | None:
    """How long the rest takes, from what trainings of the same method and phase took so far.

    What a failed selection blocks is not of the rest.

    Args:
        cells: All trainings.
        workers: Workers that are known to run; by default as many as trainings are running.

    Returns:
        Seconds, or None where nothing runs or nothing is complete yet; no less than the longest
        training takes, for which workers without one are of no help.
    """
    taken: dict[tuple, list[float]] = {}
    for cell in cells:
        if cell.state == COMPLETE and cell.trial.start and cell.trial.end:
            seconds = (cell.trial.end - cell.trial.start).total_seconds()
            for key in ((), (cell.job.phase,), (cell.job.phase, cell.job.method)):
                taken.setdefault(key, []).append(seconds)
    running = sum(cell.state == RUNNING for cell in cells)
    if not taken or not max(running, workers):
        return None
    total = longest = 0.0
    for cell in cells:
        if cell.state not in (WAITING, RUNNING) or cell.blocked:
            continue
        phase, method = cell.job.phase, cell.job.method
        known = taken.get((phase, method)) or taken.get((phase,)) or taken[()]
        seconds = statistics.fmean(known)
        if cell.state == RUNNING and cell.trial.start:
            seconds -= (datetime.datetime.now() - cell.trial.start).total_seconds()
        total += max(0.0, seconds)
        longest = max(longest, seconds)
    return max(total / max(running, workers), longest)


def status(cells: Sequence[Cell]) -> RenderableType:
    """How far a sweep is: by method and dataset, then what has failed, then in all."""
    table = Table('method', 'dataset', 'select', 'final', 'best so far', 'val', 'test', box=None)
    for name in ('val', 'test'):
        next(column for column in table.columns if column.header == name).justify = 'right'
    pairs: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        pairs.setdefault((cell.job.method, cell.job.dataset), []).append(cell)
    for (method, dataset), own in pairs.items():
        select = [cell for cell in own if cell.job.phase == SELECT]
        final = [cell for cell in own if cell.job.phase == FINAL]
        best = best_point(select)
        tested = [cell.accuracy for cell in final if cell.accuracy is not None]
        table.add_row(
            rich_markup(method),
            rich_markup(dataset),
            _progress(select),
            _progress(final),
            rich_markup(options_text(best.options)) if best else '',
            f'{best.accuracy:.2f}' if best else '',
            _mean(tested),
        )
    failed = [
        Text(f'FAILED {terminal(cell.job)}: {failure(cell)}')
        for cell in cells
        if cell.state == FAILED
    ]
    number = counts(cells)
    parts = {state: f'{number[state]} {state}' for state in (COMPLETE, RUNNING, WAITING, FAILED)}
    if blocked := sum(cell.blocked for cell in cells):
        parts[WAITING] += f' ({blocked} blocked by a failed selection: resume --retry-failed)'
    seconds = remaining_seconds(cells)
    eta = '' if seconds is None else f'; ETA {clock(seconds)}'
    total = Text(f'{len(cells)} trainings: {", ".join(parts.values())}{eta}')
    return Group(table, *failed, total)


def failure(cell: Cell) -> str:
    """Why a training failed, and where to look, in a line."""
    first = cell.error.strip().partition('\n')[0]
    return f'{terminal(first)} (see {terminal(cell.attribute("log"))})'


def _progress(cells: Sequence[Cell]) -> str:
    if not cells:
        return '-'
    number = counts(cells)
    text = f'{number[COMPLETE]}/{len(cells)}'
    for state in (RUNNING, FAILED):
        if number[state]:
            text += f', {number[state]} {state}'
    if blocked := sum(cell.blocked for cell in cells):
        text += f', {blocked} blocked'
    return text


def _mean(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return ''
    mean, deviation = over_seeds(accuracies)
    return f'{mean:.2f}' if deviation is None else f'{mean:.2f} ± {deviation:.2f}'
