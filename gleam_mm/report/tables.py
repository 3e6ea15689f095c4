"""Tables of accuracies, as the paper has them: which rows and columns, and what is in each cell."""

import statistics
from collections.abc import Iterable, Sequence

from gleam_mm.output.tables import MISSING, Cell, Column, Line, Table
from gleam_mm.report import paper
from gleam_mm.report.suites import Suite
from gleam_mm.report.trials import Row, Score

PARAMETERS = Column('parameters', 'Params (M)')
AVERAGE = Column('average', 'Average')


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
    text = f'{parameters / 1e6:.3g}' if parameters < 999.5e6 else f'{parameters / 1e6:,.0f}'
    note = f'{parameters:,.0f}' + ('' if parameters == int(parameters) else ', mean over tasks')
    return Cell(text, parameters, note=note)


def _printed(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f'{value:.1f}', value)


def _paper_parameters(row: paper.PaperRow) -> Cell:
    return Cell(row.parameters, round(float(row.parameters) * 1e6))


def context(suite: Suite, backbone: str) -> str:
    """What a table or a section is about."""
    return f'{suite.name} on {paper.backbone_name(backbone)}'


def state(row: Row, dataset: str) -> str:
    """Why the cell of a dataset is empty."""
    states = {final.state for final in row.finals if final.dataset == dataset}
    return ', '.join(sorted(states)) if states else 'not part of the study'


def _average(row: Row, suite: Suite) -> Cell:
    done, tasks = row.done(suite), len(suite.tasks)
    return accuracy(
        row.average(suite), f'{MISSING} {done}/{tasks}', f'{done} of {tasks} tasks are done'
    )


def label(row: Row) -> str:
    """The head of a row."""
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
        cells = [accuracy(row.score(dataset), note=state(row, dataset)) for dataset in suite.tasks]
        lines.append(Line(label(row), (millions(row.parameters), *cells, _average(row, suite))))
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
        f'Top-1 accuracy in % on {suite.split}, mean and standard deviation over seeds. '
        + (
            'Average: mean of the group means, only where all tasks are done. '
            if len(suite.groups) > 1
            else 'Average: only where all tasks are done. '
        )
        + 'Parameters: trained ones in millions, head excluded.'
        + (f' {paper.NOTE}' if _any_of_paper(lines) else ''),
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


def cost_table(suite: Suite, backbone: str, rows: Sequence[Row]) -> Table | None:
    """How long trainings took; None where none is done."""
    lines = []
    for row in rows:
        seconds = [final.seconds for final in row.complete if final.seconds is not None]
        if seconds:
            minutes = statistics.fmean(seconds) / 60
            lines.append(
                Line(
                    label(row),
                    (
                        millions(row.parameters),
                        Cell(f'{minutes:.1f}', minutes),
                        Cell(f'{max(seconds) / 60:.1f}', max(seconds) / 60),
                    ),
                )
            )
    if not lines:
        return None
    return Table(
        f'{suite.key}-{backbone}-cost',
        context(suite, backbone),
        'cost',
        (
            PARAMETERS,
            Column('minutes', 'Minutes, mean'),
            Column('longest', 'Minutes, longest'),
        ),
        tuple(lines),
        'Wall time of a training, its data included, on whatever machine has run it beside others.',
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
        lines.append(Line(label(row), (millions(row.parameters), *means, _average(row, suite))))
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
            f" The paper's group means are computed from its tasks. {paper.NOTE}"
            if _any_of_paper(lines)
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


def _any_of_paper(lines: Iterable[Line]) -> bool:
    return any(line.source == 'paper' for line in lines)


def _paper_groups(suite: Suite, published: paper.PaperRow) -> list[Cell]:
    """Group means of the paper's row, computed from its tasks."""
    if published.tasks is None:
        return [Cell()] * len(suite.groups)
    tasks, cells = list(published.tasks), []
    for group in suite.groups:
        members, tasks = tasks[: len(group.tasks)], tasks[len(group.tasks) :]
        cells.append(_printed(sum(members) / len(members)))
    return cells
