"""Tables, independent of how they are written: which rows and columns, and what is in each cell."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.petl.base import LINEAR_ROLES
from gleam_mm.report import paper
from gleam_mm.report.suites import Suite
from gleam_mm.report.trials import Row, Score
from gleam_mm.sweep.plan import OPTION_PREFIX

MISSING = '—'


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Attributes:
        text: What to show, without the deviation.
        value: The number behind the text, unrounded; None if there is none.
        deviation: The standard deviation over seeds; None without one.
        note: A remark that explains the cell.
        partial: Whether seeds are missing.
    """

    text: str = MISSING
    value: float | None = None
    deviation: float | None = None
    note: str = ''
    partial: bool = False

    @property
    def missing(self) -> bool:
        """Whether there is no number."""
        return self.text.startswith(MISSING)


@dataclass(frozen=True)
class Column:
    """A column: a short key for CSV, what its head says, and the group that it belongs to."""

    key: str
    label: str
    group: str = ''


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        label: The method's name, or another head.
        cells: One for each column.
        source: ``measured`` or ``paper``.
        section: What the lines from here on have in common, where a table has sections.
    """

    label: str
    cells: tuple[Cell, ...]
    source: str = 'measured'
    section: str = ''


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: Short name, for files and anchors.
        context: What it is about: suite and backbone.
        name: What it is, in that context.
        columns: Its columns, that of the labels not among them.
        lines: Its rows.
        caption: How to read it.
        head: Head of the column of labels.
        best: Keys of the columns in which the best measured number is set off.
    """

    key: str
    context: str
    name: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    caption: str = ''
    head: str = 'Method'
    best: frozenset[str] = field(default_factory=frozenset)

    @property
    def title(self) -> str:
        """What it is, without context."""
        return f'{self.context}: {self.name}'

    def is_best(self, line: Line, index: int) -> bool:
        """Whether a cell has the highest measured number of its column, of two or more."""
        if self.columns[index].key not in self.best or line.source != 'measured':
            return False
        values = [
            other.cells[index].value
            for other in self.lines
            if other.source == 'measured' and other.cells[index].value is not None
        ]
        value = line.cells[index].value
        return value is not None and len(values) > 1 and value == max(values)


def accuracy(score: Score | None, missing: str = MISSING, note: str = '') -> Cell:
    """The cell of an accuracy in %."""
    if score is None:
        return Cell(missing, note=note)
    seeds = f'{score.seeds} of {score.planned} seeds' if score.partial else f'{score.seeds} seed'
    return Cell(
        f'{score.mean:.1f}',
        score.mean,
        score.deviation,
        seeds if score.partial or score.seeds == 1 else f'{seeds}s',
        score.partial,
    )


def millions(parameters: float | None) -> Cell:
    """The cell of a number of parameters, in millions with three digits."""
    if parameters is None:
        return Cell()
    text = f'{parameters / 1e6:.3g}'
    note = f'{parameters:,.0f}' + ('' if parameters == int(parameters) else ', mean over tasks')
    return Cell(text, parameters, note=note)


def _printed(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f'{value:.1f}', value)


def _paper_parameters(row: paper.PaperRow) -> Cell:
    return Cell(row.parameters, round(float(row.parameters) * 1e6))


PARAMETERS = Column('parameters', 'Params (M)')
AVERAGE = Column('average', 'Average')


def context(suite: Suite, backbone: str) -> str:
    """What a table or a section is about."""
    return f'{suite.name} on {paper.backbone_name(backbone)}'


def _state(row: Row, dataset: str) -> str:
    """Why a cell is empty."""
    states = {final.state for final in row.finals if final.dataset == dataset}
    return ', '.join(sorted(states)) if states else 'not part of the study'


def _average(row: Row, suite: Suite) -> Cell:
    done, tasks = row.done(suite), len(suite.tasks)
    return accuracy(
        row.average(suite), f'{MISSING} {done}/{tasks}', f'{done} of {tasks} tasks are done'
    )


def _label(row: Row) -> str:
    return row.name if row.shots is None else f'{row.name}, {row.shots}-shot'


def tasks_table(suite: Suite, backbone: str, rows: Sequence[Row]) -> Table:
    """The paper's Table 1, and its like for other suites and backbones.

    Args:
        suite: The suite.
        backbone: The backbone of the rows.
        rows: What was measured. The paper's row follows each that has one.
    """
    lines = []
    for row, published in _with_paper(suite, rows):
        cells = [accuracy(row.score(dataset), note=_state(row, dataset)) for dataset in suite.tasks]
        lines.append(Line(_label(row), (millions(row.parameters), *cells, _average(row, suite))))
        if published:
            tasks = published.tasks or (None,) * len(suite.tasks)
            lines.append(_paper_line(row, published, map(_printed, tasks)))
    columns = [
        Column(dataset, label, group.name)
        for group in suite.groups
        for dataset, label in group.tasks.items()
    ]
    known = paper.BACKBONES.get(backbone)
    number = ' (Table 1 of the paper)' if (suite.key, known) == (paper.VTAB, paper.VIT_B) else ''
    return Table(
        f'{suite.key}-{backbone}-tasks',
        context(suite, backbone),
        f'all tasks{number}',
        (PARAMETERS, *columns, AVERAGE),
        tuple(lines),
        'Top-1 accuracy in % on the test split, mean and standard deviation over seeds. '
        + (
            'Average: mean of the group means, only where all tasks are done. '
            if len(suite.groups) > 1
            else 'Average: only where all tasks are done. '
        )
        + 'Parameters: trained ones in millions, head excluded.',
        best=frozenset((*suite.tasks, AVERAGE.key) if suite.shots is None else ()),
    )


def groups_table(suite: Suite, backbone: str, rows: Sequence[Row]) -> Table | None:
    """Group means, as the paper's Table 4 has them for Swin-B; None for a suite of one group."""
    if len(suite.groups) < 2:
        return None
    known = paper.BACKBONES.get(backbone)
    number = ' (Table 4 of the paper)' if (suite.key, known) == (paper.VTAB, paper.SWIN_B) else ''
    return _means(
        f'{suite.key}-{backbone}-groups',
        context(suite, backbone),
        f'group means{number}',
        suite,
        rows,
        PARAMETERS,
    )


def search_table(suite: Suite, backbone: str, rows: Sequence[Row]) -> Table | None:
    """The paper's Table 3, GLEAM-L beside GLoRA; None where no GLoRA was measured on ViT-B."""
    if (suite.key, paper.BACKBONES.get(backbone)) != (paper.VTAB, paper.VIT_B):
        return None
    if not any(row.method.startswith('glora') for row in rows):
        return None
    chosen = [row for row in rows if row.method.startswith(('glora', 'gleam-l'))]
    return _means(
        f'{suite.key}-{backbone}-glora',
        context(suite, backbone),
        'beside GLoRA (Table 3 of the paper)',
        suite,
        chosen,
        Column('parameters', 'Trained (M)'),
    )


def _paper_line(row: Row, published: paper.PaperRow, cells: Iterable[Cell]) -> Line:
    """The paper's row of a method, below what was measured."""
    numbers = (_paper_parameters(published), *cells, _printed(published.average))
    return Line(paper.method_name(row.method), numbers, 'paper')


def _means(
    key: str, about: str, name: str, suite: Suite, rows: Sequence[Row], parameters: Column
) -> Table:
    lines = []
    for row, published in _with_paper(suite, rows):
        means = []
        for group in suite.groups:
            done = sum(row.score(dataset) is not None for dataset in group.tasks)
            text = f'{done}/{len(group.tasks)}'
            means.append(accuracy(row.group(group), f'{MISSING} {text}', f'{text} tasks are done'))
        lines.append(Line(_label(row), (millions(row.parameters), *means, _average(row, suite))))
        if published:
            lines.append(_paper_line(row, published, _paper_groups(suite, published)))
    columns = tuple(Column(group.name.lower(), group.name) for group in suite.groups)
    return Table(
        key,
        about,
        name,
        (parameters, *columns, AVERAGE),
        tuple(lines),
        'Mean accuracy in % of each group; where tasks are missing, how many are done.'
        + (
            " The paper's group means are computed from its tasks."
            if any(line.source == 'paper' for line in lines)
            else ''
        ),
        best=frozenset((*(column.key for column in columns), AVERAGE.key)),
    )


def _with_paper(suite: Suite, rows: Sequence[Row]) -> list[tuple[Row, paper.PaperRow | None]]:
    """Each row with the paper's; of several rows of a method only the one with the most tasks."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row.done(suite)):
        if row.paper(suite):
            best.setdefault(row.method, row)
    return [(row, row.paper(suite) if best.get(row.method) is row else None) for row in rows]


def _paper_groups(suite: Suite, published: paper.PaperRow) -> list[Cell]:
    """Group means of the paper's row, computed from its tasks."""
    if published.tasks is None:
        return [Cell()] * len(suite.groups)
    tasks, cells = list(published.tasks), []
    for group in suite.groups:
        members, tasks = tasks[: len(group.tasks)], tasks[len(group.tasks) :]
        cells.append(_printed(sum(members) / len(members)))
    return cells


@dataclass(frozen=True)
class Setting:
    """A rung of the ladder of SLoRA, FacT and GLEAM, and its hyper-parameters.

    ``experts`` and ``top_k`` are None without a mixture of experts. ``wiring`` has the options that
    the paper leaves open, where they are not the default.
    """

    rank: int
    experts: int | None
    top_k: int | None
    alpha: float
    local: bool
    sites: tuple[str, ...]
    wiring: tuple[str, ...]


# Class of a method -> the options of GLEAM that it amounts to.
_LADDER = {
    'GLEAM': {},
    'FacT': {'moe': False},
    'SLoRA': {'moe': False, 'local': False},
}
_DEFAULTS = {
    'num_experts': 4,
    'top_k': 2,
    'alpha': 1.0,
    'moe': True,
    'local': True,
    'sites': LINEAR_ROLES,
}
_WIRING = {'scales': None, 'gate': 'image', 'moe_side': 'narrow', 'expert_init': 'kaiming'}


def setting(row: Row) -> Setting | None:
    """The setting of a row; None for other methods, and where it differs between tasks."""
    file = recipes.families()['methods'].get(row.variant.method)
    method = Config.fromfile(file).get('method', {}) if file else {}
    if method.get('type') not in _LADDER or 'rank' not in method or method.get('form') == 'tk':
        return None
    fixed = {**_DEFAULTS, **method, **_LADDER[method['type']]}
    for key, value in row.variant.options.items():
        if key.startswith(OPTION_PREFIX):
            fixed[key.removeprefix(OPTION_PREFIX)] = value
    found = {
        _setting({**fixed, **{key.removeprefix(OPTION_PREFIX): v for key, v in f.options.items()}})
        for f in row.complete
    }
    return found.pop() if len(found) == 1 else None


def _setting(options: dict[str, Any]) -> Setting:
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
            for name, default in _WIRING.items()
            if experts and options.get(name, default) != default
        ),
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
                        accuracy(row.score(dataset), note=_state(row, dataset))
                        for dataset in datasets
                    ),
                    _ablation_mean(row, datasets),
                )
                lines.append(Line(_label(row), cells, section='' if index else title))
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
        'Settings of a section differ in one thing only. Without n and k there is no mixture of '
        'experts. Mean: over these tasks, only where all are done.',
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
