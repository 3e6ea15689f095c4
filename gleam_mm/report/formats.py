"""Tables as Markdown, CSV and LaTeX."""

import csv
import io
import itertools
from collections.abc import Iterable, Sequence

from gleam_mm.report.tables import Cell, Line, Table
from gleam_mm.report.trials import Study
from gleam_mm.sweep.plan import options_text

PARTIAL = '†'
PARTIAL_NOTE = f'{PARTIAL} fewer seeds than planned are done.'
PAPER = 'paper'


def has_partial(table: Table) -> bool:
    """Whether a table has means over fewer seeds than planned."""
    return any(cell.partial for line in table.lines for cell in line.cells)


def markdown(table: Table) -> str:
    """A table as Markdown, with its title and caption."""
    rows = [[table.head, *(column.label for column in table.columns)]]
    rows.append([':---', *('---:' for _ in table.columns)])
    for line in table.lines:
        if line.section:
            rows.append([f'*{line.section}*', *('' for _ in table.columns)])
        label = f'{line.label}, *{PAPER}*' if line.source == PAPER else line.label
        cells = [
            _markdown_cell(cell, table.is_best(line, index))
            for index, cell in enumerate(line.cells)
        ]
        rows.append([_bar(label), *cells])
    text = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    note = f' {PARTIAL_NOTE}' if has_partial(table) else ''
    return f'## {table.title}\n\n{text}\n\n{table.caption}{note}\n'


def _markdown_cell(cell: Cell, best: bool) -> str:
    text = f'**{cell.text}**' if best else cell.text
    if cell.deviation is not None:
        text += f' ± {cell.deviation:.1f}'
    return text + (f' {PARTIAL}' if cell.partial else '')


def _bar(text: str) -> str:
    return text.replace('|', '\\|')


def table_csv(table: Table) -> str:
    """A table as CSV: for each column the unrounded number, and its deviation over seeds.

    What is missing is empty. ``source`` tells measured rows from the paper's.
    """
    with_deviation = [
        any(line.cells[index].deviation is not None for line in table.lines)
        for index in range(len(table.columns))
    ]
    header = ['section', table.head.lower(), 'source']
    for column, deviates in zip(table.columns, with_deviation, strict=True):
        header += [column.key, f'{column.key}_std'] if deviates else [column.key]
    rows, section = [header], ''
    for line in table.lines:
        section = line.section or section
        row = [section, line.label, line.source]
        for cell, deviates in zip(line.cells, with_deviation, strict=True):
            number = _number(cell.value)
            row.append(number or ('' if cell.missing else cell.text))
            if deviates:
                row.append(_number(cell.deviation))
        rows.append(row)
    return _csv(rows)


def finals_csv(studies: Iterable[Study]) -> str:
    """Every final training as CSV, done or not: what all tables are made from."""
    rows: list[Sequence] = [
        (
            'study',
            'backbone',
            'method',
            'dataset',
            'seed',
            'options',
            'overrides',
            'state',
            'accuracy',
            'parameters',
            'seconds',
        )
    ]
    for study in studies:
        rows += [
            (
                study.name,
                final.backbone,
                final.method,
                final.dataset,
                final.seed,
                options_text(final.options),
                options_text(study.overrides),
                final.state,
                _number(final.accuracy),
                _number(final.parameters),
                _number(final.seconds),
            )
            for final in study.finals
        ]
    return _csv(rows)


def _number(value: float | None) -> str:
    return '' if value is None else repr(value)


def _csv(rows: Iterable[Sequence]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerows(rows)
    return buffer.getvalue()


_LATEX = str.maketrans(
    {
        '&': r'\&',
        '%': r'\%',
        '$': r'\$',
        '#': r'\#',
        '_': r'\_',
        '{': r'\{',
        '}': r'\}',
        '~': r'\textasciitilde{}',
        '^': r'\textasciicircum{}',
        '\\': r'\textbackslash{}',
        '—': '---',
        '±': r'$\pm$',
        PARTIAL: r'$^\dagger$',
    }
)


def _escape(text: str) -> str:
    return text.translate(_LATEX)


def latex(table: Table) -> str:
    """A table as LaTeX; needs the packages booktabs and graphicx."""
    groups = [
        (group, len(list(members)))
        for group, members in itertools.groupby(table.columns, key=lambda column: column.group)
    ]
    lines = [
        r'\begin{table*}[t]',
        r'\centering',
        rf'\caption{{{_escape(table.title)}. {_escape(table.caption)}'
        + (f' {_escape(PARTIAL_NOTE)}' if has_partial(table) else '')
        + '}',
        rf'\label{{tab:{table.key}}}',
        r'\resizebox{\textwidth}{!}{%',
        rf'\begin{{tabular}}{{l{"c" * len(table.columns)}}}',
        r'\toprule',
    ]
    if any(group for group, _ in groups):
        heads, rules, start = [], [], 2
        for group, width in groups:
            heads.append(rf'\multicolumn{{{width}}}{{c}}{{{_escape(group)}}}')
            if group:
                rules.append(rf'\cmidrule(lr){{{start}-{start + width - 1}}}')
            start += width
        lines += [' & '.join(['', *heads]) + r' \\', ' '.join(rules)]
    turned = len(table.columns) > 12
    heads = [
        rf'\rotatebox{{90}}{{{_escape(column.label)}}}' if turned else _escape(column.label)
        for column in table.columns
    ]
    lines += [' & '.join([_escape(table.head), *heads]) + r' \\', r'\midrule']
    for number, line in enumerate(table.lines):
        if line.section:
            if number:
                lines.append(r'\midrule')
            width = len(table.columns) + 1
            lines.append(rf'\multicolumn{{{width}}}{{l}}{{\emph{{{_escape(line.section)}}}}} \\')
        lines.append(_latex_line(table, line))
    lines += [r'\bottomrule', r'\end{tabular}}', r'\end{table*}']
    return '\n'.join(lines) + '\n'


def _latex_line(table: Table, line: Line) -> str:
    label = _escape(line.label)
    if line.source == PAPER:
        label = rf'\quad \emph{{{PAPER}}}'
    cells = []
    for index, cell in enumerate(line.cells):
        text = _escape(cell.text)
        if line.source == PAPER:
            text = rf'\emph{{{text}}}'
        elif table.is_best(line, index):
            text = rf'\textbf{{{text}}}'
        if cell.deviation is not None:
            text += rf' {{\tiny $\pm$ {cell.deviation:.1f}}}'
        cells.append(text + (r'$^\dagger$' if cell.partial else ''))
    return ' & '.join([label, *cells]) + r' \\'
