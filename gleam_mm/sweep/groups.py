"""Groups of datasets: what ``vtab-natural`` means, and how groups are averaged."""

import fnmatch
import statistics
from collections.abc import Iterable, Mapping, Sequence

from gleam_mm.datasets.vtab import VTAB_TASKS
from gleam_mm.messages import hint_at
from gleam_mm.shell import command

# As the files in configs/_base_/datasets are called, in the order of the papers' tables.
GROUPS = {
    f'vtab-{group}': tuple(task.recipe for task in VTAB_TASKS.values() if task.group == group)
    for group in ('natural', 'specialized', 'structured')
}
# Groups that are all names with a prefix, whatever files there are.
PREFIXES = ('fgvc', 'mini')


def expand(names: Iterable[str], known: Sequence[str], what: str) -> list[str]:
    """Replaces names of groups and glob patterns by the names that they stand for.

    Args:
        names: Names, groups (``vtab``, ``vtab-natural``, ``fgvc``, ``mini``) and patterns such as
            ``gleam-*``.
        known: All names that there are.
        what: What they name, for the message: ``dataset``.

    Returns:
        Names in the given order, each once.

    Raises:
        ValueError: A name is unknown, or a group or pattern stands for nothing.
    """
    found = {}
    for name in names:
        if name in known:
            members = [name]
        elif name == 'vtab':
            members = [dataset for group in GROUPS.values() for dataset in group]
        elif name in GROUPS:
            members = list(GROUPS[name])
        elif name in PREFIXES:
            members = fnmatch.filter(known, f'{name}-*')
        else:
            members = fnmatch.filter(known, name)
        members = [member for member in members if member in known]
        if not members:
            hint = hint_at(name, [*known, 'vtab', *GROUPS], 3)
            raise ValueError(f'unknown {what} {name!r}{hint}; {command("recipes")!r} lists all')
        found.update(dict.fromkeys(members))
    return list(found)


def group_of(dataset: str) -> str:
    """The group that a dataset is averaged in: one of VTAB's three, or its name's first part."""
    for group, members in GROUPS.items():
        if dataset in members:
            return group
    return dataset.split('-')[0]


def average(accuracies: Mapping[str, float | None]) -> float | None:
    """The mean of the means of groups, as the papers average VTAB-1K, not the mean of all tasks.

    Args:
        accuracies: Accuracy by dataset, of every dataset that the average is meant to be over.

    Returns:
        The average, or None where an accuracy is missing.
    """
    if not accuracies or any(accuracy is None for accuracy in accuracies.values()):
        return None
    groups: dict[str, list[float]] = {}
    for dataset, accuracy in accuracies.items():
        groups.setdefault(group_of(dataset), []).append(accuracy)
    return statistics.fmean(statistics.fmean(members) for members in groups.values())


def over_seeds(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (divisor n - 1), None of a single value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation
