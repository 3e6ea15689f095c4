"""Paired comparisons of two methods over tasks and seeds: differences, tests and verdicts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.05
_ROUNDING = 1e-9  # points that means of equal differences may differ by
HOLDS, OPPOSITE, OPEN, NO_DATA = 'holds', 'the other way round', 'not decided', 'no data'

Scores = Mapping[tuple[str, int], float]
"""Task and seed -> accuracy in %."""


@dataclass(frozen=True)
class Paired:
    """What one method gains over another where both were trained.

    Attributes:
        mean: Mean over tasks of each task's mean difference over seeds, in points, so that a task
            with more seeds weighs no more.
        half_width: Of the 95 % interval of ``mean`` by Student's t over tasks; None of one task.
        deviation: Sample standard deviation of the differences of all pairs; None of one pair.
        tasks: Task -> its mean difference.
        pairs: How many task x seed pairs both have.
        wins: In how many the first method is better.
        ties: In how many they are equal.
        losses: In how many it is worse.
        p_pairs: Of the signed-rank test over pairs.
        p_tasks: Of the t test over tasks.
    """

    mean: float
    half_width: float | None
    deviation: float | None
    tasks: dict[str, float]
    pairs: int
    wins: int
    ties: int
    losses: int
    p_pairs: float | None
    p_tasks: float | None


def differences(first: Scores, second: Scores) -> dict[tuple[str, int], float]:
    """By how many points the first is better, for the tasks and seeds that both have.

    Accuracies are kept with two decimals: rounded like them, equal differences are ties for ranks.
    """
    return {key: round(first[key] - second[key], 2) for key in sorted(first.keys() & second.keys())}


def task_means(by_pair: Scores) -> dict[str, float]:
    """The mean over the seeds of each task."""
    by_task: dict[str, list[float]] = {}
    for (task, _), value in by_pair.items():
        by_task.setdefault(task, []).append(value)
    return {task: statistics.fmean(values) for task, values in by_task.items()}


def signed_rank_p(values: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test against 0; zeros are dropped, as he did.

    Returns:
        1 where all of several values are zero, None for fewer than two values.
    """
    if len(values) < 2:
        return None
    if not any(values):
        return 1.0
    return float(stats.wilcoxon(values, zero_method='wilcox').pvalue)


def t_p(values: Sequence[float]) -> float | None:
    """Two-sided p of Student's t test against 0.

    Returns:
        1 where all of several values are zero; None for fewer than two values, and where they are
        equal but not zero, which rounding makes of too few.
    """
    if len(values) < 2:
        return None
    if math.isclose(max(values), min(values), rel_tol=0, abs_tol=_ROUNDING):
        return None if abs(values[0]) > _ROUNDING else 1.0
    return float(stats.ttest_1samp(values, 0).pvalue)


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / len(values) ** 0.5
    return float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * error


def compare(first: Scores, second: Scores) -> Paired | None:
    """Compares two methods.

    Returns:
        The comparison, or None where no task and seed has both.
    """
    found = differences(first, second)
    if not found:
        return None
    values = list(found.values())
    tasks = task_means(found)
    means = list(tasks.values())
    return Paired(
        mean=statistics.fmean(means),
        half_width=half_width(means),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        tasks=tasks,
        pairs=len(values),
        wins=sum(value > 0 for value in values),
        ties=sum(value == 0 for value in values),
        losses=sum(value < 0 for value in values),
        p_pairs=signed_rank_p(values),
        p_tasks=t_p(means),
    )


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of the p values of a family.

    A comparison without a p yet counts as one with p = 1, so that a family that is not complete is
    corrected as strictly as the complete one will be.

    Returns:
        The corrected values in the given order, None where there was none.
    """
    order = sorted(
        (index for index, p in enumerate(values) if p is not None), key=lambda i: values[i]
    )
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = largest
    return corrected


def verdict(paired: Paired | None, p: float | None) -> str:
    """The verdict on 'the first is better than the second'.

    Args:
        paired: The comparison.
        p: Its p over tasks, corrected.

    Returns:
        ``holds`` where the mean difference is above 0 and p below 0.05, ``the other way round``
        where it is below 0 and p as well, else ``not decided``; ``no data`` without a comparison.
    """
    if paired is None:
        return NO_DATA
    if p is None or p >= LEVEL:
        return OPEN
    return HOLDS if paired.mean > 0 else OPPOSITE
