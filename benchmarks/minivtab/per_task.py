"""Sections of a page on trainings whose options are chosen for each task, from a record alone."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import paired
import records
from records import Record

from gleam_mm.output.tables import MISSING, count, number, pipes
from gleam_mm.sweep.groups import over_seeds
from gleam_mm.sweep.plan import FINAL, SELECT


@dataclass(frozen=True)
class Claim:
    """A sentence that says that one method is better than another.

    Attributes:
        says: The sentence.
        first: The method that it is about.
        second: The other one.
    """

    says: str
    first: str
    second: str


@dataclass(frozen=True)
class Judged:
    """What came of a claim.

    Attributes:
        claim: The claim.
        compared: Its numbers; None without data.
        p: Over tasks, corrected for all of them.
        verdict: The verdict.
    """

    claim: Claim
    compared: paired.Paired | None
    p: float | None
    verdict: str


def present(scores: Mapping[str, paired.Scores], tasks: Mapping[str, str]) -> dict[str, str]:
    """The tasks of which there is a training, in their order.

    Args:
        scores: Method -> task and seed -> accuracy.
        tasks: Task -> what tables call it.
    """
    found = {task for own in scores.values() for task, _ in own}
    return {task: label for task, label in tasks.items() if task in found}


def accuracies(
    scores: Mapping[str, paired.Scores], parameters: Mapping[str, int], tasks: Mapping[str, str]
) -> str:
    """The table of accuracies, the best mean first; without a mean who lacks one of the tasks.

    Args:
        scores: Method -> task and seed -> accuracy.
        parameters: Method -> trained numbers.
        tasks: Task -> what the table calls it.
    """
    tasks = present(scores, tasks)
    means = {method: paired.task_means(own) for method, own in scores.items()}
    overall = {
        method: statistics.fmean(own[task] for task in tasks)
        for method, own in means.items()
        if own.keys() >= tasks.keys()
    }
    rows = [
        [
            method,
            count(parameters[method]),
            _seeds(scores[method]),
            *(number(means[method].get(task)) for task in tasks),
            number(overall.get(method)),
            number(_deviation(scores[method], tasks), '.2f'),
        ]
        for method in sorted(means, key=lambda m: (m not in overall, -overall.get(m, 0.0), m))
    ]
    head = ['method', 'parameters', 'seeds', *tasks.values(), 'mean', 'SD']
    return pipes(head, rows, left=['method'])


def _seeds(own: paired.Scores) -> str:
    """How many seeds the tasks of a method have: a number, or the fewest and the most."""
    numbers = Counter(task for task, _ in own).values()
    fewest, most = min(numbers), max(numbers)
    return str(most) if fewest == most else f'{fewest} to {most}'


def _deviation(own: paired.Scores, tasks: Mapping[str, str]) -> float | None:
    """Standard deviation of the mean over tasks, over the seeds that all of them have."""
    seeds = {seed for _, seed in own}
    by_seed = [[own.get((task, seed)) for task in tasks] for seed in seeds]
    means = [statistics.fmean(values) for values in by_seed if None not in values]
    return over_seeds(means)[1] if means else None


def judge(claims: Sequence[Claim], scores: Mapping[str, paired.Scores]) -> list[Judged]:
    """Puts all claims to the test.

    Args:
        claims: The claims.
        scores: Method -> task and seed -> accuracy.
    """
    compared = [
        paired.compare(scores.get(claim.first, {}), scores.get(claim.second, {}))
        for claim in claims
    ]
    corrected = paired.holm([one.p_tasks if one else None for one in compared])
    return [
        Judged(claim, one, p, paired.verdict(one, p))
        for claim, one, p in zip(claims, compared, corrected, strict=True)
    ]


def verdicts(judged: Sequence[Judged]) -> str:
    """The table of claims, with what can be said of each."""
    rows = [
        [
            one.claim.says,
            f'{one.compared.mean:+.1f}' if one.compared else MISSING,
            f'{one.compared.wins} of {one.compared.pairs}' if one.compared else MISSING,
            number(one.p, '.3f'),
            one.verdict,
        ]
        for one in judged
    ]
    return pipes(['claim', 'points', 'pairs won', 'p', 'verdict'], rows, left=['claim'])


def rates(trainings: Sequence[Record], tasks: Mapping[str, str]) -> str:
    """The table of chosen learning rates: those that final trainings have.

    Args:
        trainings: The record.
        tasks: Task -> what the table calls it.
    """
    validated = {
        (row.method, row.dataset, row.options): row.accuracy
        for row in trainings
        if row.phase == SELECT and row.accuracy is not None
    }
    chosen = {(r.method, r.dataset): r for r in trainings if r.phase == FINAL and r.options}
    tasks = {task: label for task, label in tasks.items() if any(d == task for _, d in chosen)}
    rows = []
    for method in sorted({method for method, _ in chosen}):
        cells = []
        for task in tasks:
            row = chosen.get((method, task))
            accuracy = validated.get((method, task, row.options)) if row else None
            cells.append(
                MISSING if accuracy is None else f'{records.rate_of(row):g} ({accuracy:.1f})'
            )
        rows.append([method, *cells])
    return pipes(['method', *tasks.values()], rows, left=['method'])
