"""The suites that datasets belong to: their order, their groups and how columns are headed.

A suite of your own is one more entry of :data:`SUITES`. Datasets of no suite are reported together,
as one group.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gleam_mm.datasets import FGVC_TASKS, VTAB_TASKS
from gleam_mm.minivtab import MINI_TASKS


@dataclass(frozen=True)
class Group:
    """Tasks whose mean counts once in the average of the suite.

    Attributes:
        name: What it is called.
        tasks: Name of the dataset, as in ``configs/_base_/datasets`` -> head of its column.
    """

    name: str
    tasks: dict[str, str]


@dataclass(frozen=True)
class Suite:
    """A benchmark: what a table has columns for.

    Attributes:
        key: Short name, for files.
        name: What it is called.
        groups: Its groups, in the order of the columns.
        ablation: Datasets of the ablation table; all of them where empty.
        shots: Images a class that its datasets train on unless told otherwise; None where the suite
            has no such choice.
        split: What accuracies are of.
    """

    key: str
    name: str
    groups: tuple[Group, ...]
    ablation: tuple[str, ...] = ()
    shots: int | None = None
    split: str = 'the test split'

    @property
    def tasks(self) -> dict[str, str]:
        """Datasets of all groups -> heads of their columns."""
        return {dataset: label for group in self.groups for dataset, label in group.tasks.items()}


def validating(suite: Suite) -> Suite:
    """The suite of accuracies on validation splits, beside which the paper has none."""
    return replace(
        suite,
        key=f'{suite.key}-validation',
        name=f'{suite.name}, validation',
        split='the validation split, of the best options so far',
    )


def _thirds(tasks: Iterable[tuple[str, str, str]]) -> tuple[Group, ...]:
    """VTAB's three groups of tasks: the group, the dataset and its title of each."""
    groups: dict[str, dict[str, str]] = {}
    for group, dataset, title in tasks:
        groups.setdefault(group, {})[dataset] = title
    return tuple(Group(name.title(), titles) for name, titles in groups.items())


SUITES = (
    Suite(
        key='vtab',
        name='VTAB-1K',
        groups=_thirds((task.group, task.recipe, task.title) for task in VTAB_TASKS.values()),
        ablation=('vtab-cifar', 'vtab-caltech101', 'vtab-dtd', 'vtab-flowers102', 'vtab-pets'),
    ),
    Suite(
        key='mini',
        name='MiniVTAB',
        groups=_thirds(
            (task.group, f'mini-{name}', name.title()) for name, task in MINI_TASKS.items()
        ),
    ),
    Suite(
        key='fgvc',
        name='Few-shot FGVC',
        groups=(Group('Fine-grained', {task.recipe: task.title for task in FGVC_TASKS.values()}),),
        shots=1,
    ),
)


def suites_of(datasets: Iterable[str]) -> list[Suite]:
    """The suites that datasets belong to.

    Args:
        datasets: Names of datasets.

    Returns:
        The suites of which at least one dataset is there, whole. Datasets of none of them make up a
        last one.
    """
    datasets = list(dict.fromkeys(datasets))
    found = [suite for suite in SUITES if any(dataset in suite.tasks for dataset in datasets)]
    known = {dataset for suite in found for dataset in suite.tasks}
    others = {dataset: dataset for dataset in datasets if dataset not in known}
    if others:
        found.append(Suite('other', 'Other datasets', (Group('Datasets', others),)))
    return found
