"""Sections of a page on trainings whose options are chosen for each task, from a record alone."""

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import charts
import paired
import records
import verdicts
from claims import Claim, Comparison, label
from records import Record

from gleam_mm.output.tables import MISSING, count, number, pipes
from gleam_mm.sweep.groups import over_seeds
from gleam_mm.sweep.plan import FINAL, SELECT

_NAMES = {'lora': 'LoRA of rank 8 on qkv', 'fact': 'FacT'}
_ASKED = """\
By the rule of {rule}:
a claim holds where the mean difference over tasks is above zero and the p of its t test over tasks,
with Holm's correction for all lines of this table, is below 0.05."""


def ask(pairs: Iterable[tuple[str, str]], rule: str, names: Mapping[str, str]) -> Claim:
    """What a page asks of its trainings: whether of each pair the first method is better.

    Args:
        pairs: First and second method.
        rule: A link to the rule.
        names: Method -> what sentences call it, where neither :func:`claims.label` nor what all
            pages have in common says enough.
    """
    known = _NAMES | {**names}

    def named(method: str) -> str:
        return known.get(method) or label(method)

    return Claim(
        'What was asked',
        _ASKED.format(rule=rule),
        tuple(
            Comparison(first, second, f'{named(first)} is better than {named(second)}')
            for first, second in pairs
        ),
    )


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
            number(deviation(scores[method], tasks), '.2f'),
        ]
        for method in sorted(means, key=lambda m: (m not in overall, -overall.get(m, 0.0), m))
    ]
    head = ['method', 'parameters', 'seeds', *tasks.values(), 'mean', 'SD']
    return pipes(head, rows, left=['method'])


def groups(
    scores: Mapping[str, paired.Scores],
    parameters: Mapping[str, int],
    groups: Mapping[str, Collection[str]],
    counted: int,
) -> str:
    """The table of means over groups of tasks, the best first; empty where nobody has all tasks.

    Args:
        scores: Method -> task and seed -> accuracy.
        parameters: Method -> trained numbers.
        groups: Head of a column -> the tasks of its group.
        counted: How many of them, the first ones, make up the mean of groups.
    """
    tasks = {task for group in groups.values() for task in group}
    rows = []
    for method, own in scores.items():
        means = paired.task_means(own)
        if means.keys() >= tasks:
            values = [statistics.fmean(means[task] for task in group) for group in groups.values()]
            values.insert(counted, statistics.fmean(values[:counted]))
            rows.append([method, count(parameters[method]), *values])
    if not rows:
        return ''
    rows.sort(key=lambda row: (-row[2 + counted], row[0]))
    head = ['method', 'parameters', *groups]
    head.insert(2 + counted, 'mean of groups')
    body = [[*row[:2], *map(number, row[2:])] for row in rows]
    return pipes(head, body, left=['method'])


def _seeds(own: paired.Scores) -> str:
    """How many seeds the tasks of a method have: a number, or the fewest and the most."""
    numbers = Counter(task for task, _ in own).values()
    fewest, most = min(numbers), max(numbers)
    return str(most) if fewest == most else f'{fewest} to {most}'


def deviation(own: paired.Scores, tasks: Collection[str]) -> float | None:
    """Standard deviation of a method's mean over tasks, over the seeds that all of them have.

    Args:
        own: Task and seed -> accuracy.
        tasks: The tasks.
    """
    seeds = {seed for _, seed in own}
    by_seed = [[own.get((task, seed)) for task in tasks] for seed in seeds]
    means = [statistics.fmean(values) for values in by_seed if None not in values]
    return over_seeds(means)[1] if means else None


def points(trainings: Sequence[Record], tasks: Collection[str]) -> list[charts.Point]:
    """What figures of accuracy against parameters draw: the methods that have all of the tasks.

    Args:
        trainings: The record.
        tasks: The tasks, over which accuracies are means.
    """
    scores, parameters = records.scores(trainings), records.parameters(trainings)
    found = []
    for method, own in scores.items():
        means = paired.task_means(own)
        if tasks and means.keys() >= {*tasks}:
            mean = statistics.fmean(means[task] for task in tasks)
            found.append(charts.Point(method, parameters[method], mean, deviation(own, tasks)))
    return found


def answers(claim: Claim, scores: Mapping[str, paired.Scores]) -> str:
    """The section of a claim, with what can be said of each comparison.

    Args:
        claim: As :func:`ask` gives it.
        scores: Method -> task and seed -> accuracy.
    """
    rows = [
        [
            one.comparison.about,
            f'{one.paired.mean:+.1f}' if one.paired else MISSING,
            f'{one.paired.wins} of {one.paired.pairs}' if one.paired else MISSING,
            number(one.p_tasks, '.3f'),
            one.verdict,
        ]
        for one in verdicts.judge(claim, scores)
    ]
    table = pipes(['claim', 'points', 'pairs won', 'p', 'verdict'], rows, left=['claim'])
    return f'## {claim.title}\n\n{claim.says}\n\n{table}'


def rates(trainings: Sequence[Record], tasks: Mapping[str, str]) -> str:
    """The table of chosen learning rates: those that final trainings have.

    Args:
        trainings: The record.
        tasks: Task -> what the table calls it.
    """
    validated: dict[tuple[str, str, str], list[float]] = {}
    for row in trainings:
        if row.phase == SELECT and row.accuracy is not None:
            seeds = validated.setdefault((row.method, row.dataset, row.options), [])
            seeds.append(row.accuracy)
    chosen = {(r.method, r.dataset): r for r in trainings if r.phase == FINAL and r.options}
    tasks = {task: label for task, label in tasks.items() if any(d == task for _, d in chosen)}
    rows = []
    for method in sorted({method for method, _ in chosen}):
        cells = []
        for task in tasks:
            row = chosen.get((method, task))
            seeds = validated.get((method, task, row.options)) if row else None
            cells.append(
                f'{records.rate_of(row):g} ({statistics.fmean(seeds):.1f})' if seeds else MISSING
            )
        rows.append([method, *cells])
    return pipes(['method', *tasks.values()], rows, left=['method'])
