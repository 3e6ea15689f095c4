"""The suites that datasets belong to: their order, their groups and how columns are headed.

A suite of your own is one more entry of :data:`SUITES`. Datasets of no suite are reported together,
as one group.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gleam_mm.sweep.groups import GROUPS


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
    """

    key: str
    name: str
    groups: tuple[Group, ...]
    ablation: tuple[str, ...] = ()
    shots: int | None = None

    @property
    def tasks(self) -> dict[str, str]:
        """Datasets of all groups -> heads of their columns."""
        return {dataset: label for group in self.groups for dataset, label in group.tasks.items()}


_VTAB_LABELS = {
    'vtab-cifar': 'CIFAR-100',
    'vtab-caltech101': 'Caltech101',
    'vtab-dtd': 'DTD',
    'vtab-flowers102': 'Flowers102',
    'vtab-pets': 'Pets',
    'vtab-svhn': 'SVHN',
    'vtab-sun397': 'Sun397',
    'vtab-camelyon': 'Camelyon',
    'vtab-eurosat': 'EuroSAT',
    'vtab-resisc45': 'Resisc45',
    'vtab-retinopathy': 'Retinopathy',
    'vtab-clevr-count': 'Clevr-Count',
    'vtab-clevr-dist': 'Clevr-Dist',
    'vtab-dmlab': 'DMLab',
    'vtab-kitti': 'KITTI-Dist',
    'vtab-dsprites-loc': 'dSpr-Loc',
    'vtab-dsprites-ori': 'dSpr-Ori',
    'vtab-smallnorb-azi': 'sNORB-Azim',
    'vtab-smallnorb-ele': 'sNORB-Ele',
}

SUITES = (
    Suite(
        key='vtab',
        name='VTAB-1K',
        groups=tuple(
            Group(name, {task: _VTAB_LABELS[task] for task in GROUPS[key]})
            for name, key in (
                ('Natural', 'vtab-natural'),
                ('Specialized', 'vtab-specialized'),
                ('Structured', 'vtab-structured'),
            )
        ),
        ablation=('vtab-cifar', 'vtab-caltech101', 'vtab-dtd', 'vtab-flowers102', 'vtab-pets'),
    ),
    Suite(
        key='mini',
        name='MiniVTAB',
        groups=(
            Group(
                'Natural',
                {'mini-digits': 'Digits', 'mini-textures': 'Textures', 'mini-letters': 'Letters'},
            ),
            Group(
                'Specialized',
                {'mini-cells': 'Cells', 'mini-land': 'Land', 'mini-defects': 'Defects'},
            ),
            Group(
                'Structured',
                {
                    'mini-count': 'Count',
                    'mini-distance': 'Distance',
                    'mini-orientation': 'Orientation',
                },
            ),
        ),
    ),
    Suite(
        key='fgvc',
        name='Few-shot FGVC',
        groups=(
            Group(
                'Fine-grained',
                {
                    'fgvc-food101': 'Food-101',
                    'fgvc-cars': 'Stanford Cars',
                    'fgvc-flowers102': 'Flowers102',
                    'fgvc-aircraft': 'Aircraft',
                    'fgvc-pets': 'Pets',
                },
            ),
        ),
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
