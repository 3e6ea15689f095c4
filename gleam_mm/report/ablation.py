"""The paper's Table 2: settings of GLEAM and its ladder that differ in one thing."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.output.tables import MISSING, Cell, Column, Line, Table
from gleam_mm.petl import GLEAM
from gleam_mm.report import paper
from gleam_mm.report.suites import Suite
from gleam_mm.report.tables import accuracy, context, label, state
from gleam_mm.report.trials import Row, chosen_of
from gleam_mm.sweep.plan import OPTION_PREFIX


@dataclass(frozen=True)
class Setting:
    """A rung of the ladder of SLoRA, FacT and GLEAM, and its hyper-parameters.

    ``experts`` and ``top_k`` are None without a mixture of experts. ``wiring`` has the options that
    the paper leaves open, where they are not the default, and ``training`` what the study changed
    beside the method, but for the learning rate, which is chosen for each setting.
    """

    rank: int
    experts: int | None
    top_k: int | None
    alpha: float
    local: bool
    sites: tuple[str, ...]
    wiring: tuple[str, ...]
    training: tuple[str, ...]


# Class of a method -> the options of GLEAM that it amounts to.
_LADDER = {
    'GLEAM': {},
    'FacT': {'moe': False},
    'SLoRA': {'moe': False, 'local': False},
}
_DEFAULTS = {name: option.default for name, option in inspect.signature(GLEAM).parameters.items()}
_RATE = 'optim_wrapper.optimizer.lr'
_NAMED = ('rank', 'num_experts', 'top_k', 'alpha', 'moe', 'local', 'sites')


def setting(row: Row) -> Setting | None:
    """The setting of a row; None for other methods, and where it differs between tasks."""
    file = recipes.families()['methods'].get(row.variant.method)
    method = Config.fromfile(file).get('method', {}) if file else {}
    if method.get('type') not in _LADDER or 'rank' not in method:
        return None
    start = {**_DEFAULTS, **method, **_LADDER[method['type']]}
    found = set()
    for final in row.complete:
        found.add(_setting(start, {**row.variant.options, **chosen_of(final)}))
    return found.pop() if len(found) == 1 else None


def _setting(method: Mapping[str, Any], changes: Mapping[str, Any]) -> Setting | None:
    options, training = dict(method), []
    for key, value in sorted(changes.items()):
        if key.startswith(OPTION_PREFIX):
            options[key.removeprefix(OPTION_PREFIX)] = value
        elif key != _RATE:
            training.append(f'{key}={value}')
    if options.get('form') == 'tk' or options['type'] != method['type'] or '_delete_' in options:
        return None
    experts = options['num_experts'] if options['moe'] else None
    return Setting(
        options['rank'],
        experts,
        options['top_k'] if experts else None,
        float(options['alpha']),
        bool(options['local']),
        tuple(sorted(options['sites'])),
        tuple(
            f'{name}={options[name]}'
            for name, default in _DEFAULTS.items()
            if name not in _NAMED and options[name] != default
        ),
        tuple(training),
    )


_FACTORS = {
    'experts': 'Number of experts n',
    'top_k': 'Selected experts k',
    'alpha': 'Scaling factor alpha',
    'local': 'Local transforms',
    'sites': 'Adapted sites',
    'wiring': 'Wiring that the paper leaves open',
}


def ablation_table(suite: Suite, backbone: str, rows: Sequence[Row]) -> Table | None:
    """The paper's Table 2: settings of GLEAM that differ in one thing.

    Args:
        suite: The suite.
        backbone: The backbone of the rows.
        rows: What was measured.

    Returns:
        A section for n (without the mixture of experts on top), k, alpha and local transforms each,
        where two or more settings differ in nothing else; None where there are no such settings.
    """
    datasets = suite.ablation or tuple(suite.tasks)
    settings = [
        (found, row)
        for row in rows
        if any(row.score(dataset) for dataset in datasets) and (found := setting(row))
    ]
    lines = []
    for factor, title in _FACTORS.items():
        for members in _families(settings, factor):
            for index, (found, row) in enumerate(members):
                cells = (
                    Cell(str(found.rank), found.rank),
                    Cell() if found.experts is None else Cell(str(found.experts), found.experts),
                    Cell() if found.top_k is None else Cell(str(found.top_k), found.top_k),
                    Cell(f'{found.alpha:g}', found.alpha),
                    Cell('yes' if found.local else 'no'),
                    Cell(
                        'all' if set(found.sites) == set(LINEAR_ROLES) else ', '.join(found.sites)
                    ),
                    *(
                        accuracy(row.score(dataset), note=state(row, dataset))
                        for dataset in datasets
                    ),
                    _ablation_mean(row, datasets),
                )
                lines.append(Line(label(row), cells, section='' if index else title))
    if not lines:
        return None
    number = ' (Table 2 of the paper)' if suite.key == paper.VTAB else ''
    return Table(
        f'{suite.key}-{backbone}-ablation',
        context(suite, backbone),
        f'ablation{number}',
        (
            Column('rank', 'r'),
            Column('num_experts', 'n'),
            Column('top_k', 'k'),
            Column('alpha', 'alpha'),
            Column('local', 'local'),
            Column('sites', 'sites'),
            *(Column(dataset, suite.tasks[dataset]) for dataset in datasets),
            Column('mean', 'Mean'),
        ),
        tuple(lines),
        'Settings of a section differ in one thing only, learning rates aside. Without n and k '
        'there is no mixture of experts. Mean: over these tasks, only where all are done.',
    )


def _ablation_mean(row: Row, datasets: Sequence[str]) -> Cell:
    done = sum(row.score(dataset) is not None for dataset in datasets)
    return accuracy(row.mean(datasets), f'{MISSING} {done}/{len(datasets)}')


def _families(
    settings: Iterable[tuple[Setting, Row]], factor: str
) -> list[list[tuple[Setting, Row]]]:
    """Settings that agree in all but one factor, where that takes two or more values."""
    settings = list(settings)
    families: dict[Setting, list[tuple[Setting, Row]]] = {}
    for found, row in settings:
        if factor not in ('experts', 'top_k') or found.experts is not None:
            families.setdefault(replace(found, **{factor: None}), []).append((found, row))
    if factor == 'experts':  # what has no experts agrees with every k: it joins one of them
        for without, row in settings:
            if without.experts is None:
                bases = [base for base in families if replace(base, top_k=None) == without]
                if bases:
                    largest = max(bases, key=lambda base: len(families[base]))
                    families[largest].append((without, row))
    return [
        sorted(members, key=lambda member: _order(getattr(member[0], factor)))
        for members in families.values()
        if len({getattr(found, factor) for found, _ in members}) > 1
    ]


def _order(value: Any) -> tuple[bool, Any]:
    """Sorts what is missing first."""
    return (value is not None, value)
