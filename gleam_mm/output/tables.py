"""Tables: what is in them, and what a terminal, Markdown, CSV, LaTeX and HTML make of them.

All text of a :class:`Table` is plain; each form escapes it.
"""

import csv as _csv
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gleam_mm.output import escape

MISSING = '—'
PARTIAL = '†'
PARTIAL_NOTE = f'{PARTIAL} fewer seeds than planned are done.'
MEASURED = 'measured'
_MOST_UPRIGHT = 12  # columns whose heads have room beside each other


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
        source: ``measured``, or where its numbers are quoted from, such as ``paper``.
        section: What the lines from here on have in common, where a table has sections.
    """

    label: str
    cells: tuple[Cell, ...]
    source: str = MEASURED
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
    def slug(self) -> str:
        """The key as a part of a file's name, of an anchor or of a label."""
        return escape.file_name(self.key)

    @property
    def title(self) -> str:
        """What it is, with its context."""
        return f'{self.context}: {self.name}'

    @property
    def explanation(self) -> str:
        """The caption, and what its marks mean."""
        partial = any(cell.partial for line in self.lines for cell in line.cells)
        return f'{self.caption} {PARTIAL_NOTE}' if partial else self.caption

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The groups of adjacent columns, and how many columns each has; none without a name."""
        found = [
            (group, len(list(members)))
            for group, members in itertools.groupby(self.columns, key=lambda column: column.group)
        ]
        return found if any(group for group, _ in found) else []

    def is_best(self, line: Line, index: int) -> bool:
        """Whether a cell has the highest measured number of its column, of two or more."""
        if self.columns[index].key not in self.best or line.source != MEASURED:
            return False
        values = [
            other.cells[index].value
            for other in self.lines
            if other.source == MEASURED and other.cells[index].value is not None
        ]
        return len(values) > 1 and line.cells[index].value == max(values)


def number(value: float | None, form: str = '.1f') -> str:
    """A number that may be missing."""
    return MISSING if value is None else format(value, form)


def count(value: float | None) -> str:
    """A whole number that may be missing, with commas."""
    return number(value, ',.0f')


def size(value: float) -> str:
    """A number of bytes as ``87.5 KB`` or ``343.2 MB``."""
    return f'{value / 1e6:.1f} MB' if value >= 1e6 else f'{value / 1e3:.1f} KB'


def clock(seconds: float | None) -> str:
    """A time as ``1:02:03`` or ``2:03``; ``-:--`` where it is not known yet."""
    if seconds is None:
        return '-:--'
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


def text(head: Sequence[str], body: Iterable[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A table for a terminal, as wide as it needs to be.

    Args:
        head: Heads of the columns.
        body: Its rows.
        left: Heads of the columns of text; all others are of numbers, to the right.
    """
    rows = [list(map(escape.terminal, row)) for row in (head, *body)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ['-' * width for width in widths])
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(row, widths, head, strict=True)
        ).rstrip()
        for row in rows
    )


def pipes(head: Sequence[str], body: Iterable[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A table of cells that are Markdown already; arguments as those of :func:`text`."""
    rules = [':---' if name in left else '---:' for name in head]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (head, rules, *body))


def markdown(table: Table) -> str:
    """A table as Markdown, with its title and caption."""
    head = [escape.markdown(name) for name in (table.head, *(c.label for c in table.columns))]
    body = []
    for line in table.lines:
        if line.section:
            body.append([f'*{escape.markdown(line.section)}*', *('' for _ in table.columns)])
        label = escape.markdown(line.label)
        if line.source != MEASURED:
            label += f', *{escape.markdown(line.source)}*'
        cells = [
            _markdown_cell(cell, table.is_best(line, index))
            for index, cell in enumerate(line.cells)
        ]
        body.append([label, *cells])
    return (
        f'## {escape.markdown(table.title)}\n\n{pipes(head, body, left=head[:1])}\n\n'
        f'{escape.markdown(table.explanation)}\n'
    )


def _markdown_cell(cell: Cell, best: bool) -> str:
    shown = escape.markdown(cell.text)
    shown = f'**{shown}**' if best else shown
    if cell.deviation is not None:
        shown += f' ± {cell.deviation:.1f}'
    return shown + (f' {PARTIAL}' if cell.partial else '')


def csv(rows: Iterable[Sequence[str | float | None]]) -> str:
    """Rows as CSV. Numbers are not rounded, and None is an empty cell."""
    buffer = io.StringIO()
    writer = _csv.writer(buffer, lineterminator='\n')
    writer.writerows(map(escape.csv_cell, row) for row in rows)
    return buffer.getvalue()


def table_csv(table: Table) -> str:
    """A table as CSV: for each column the unrounded number, and its deviation over seeds.

    What is missing is empty. ``source`` tells measured rows from quoted ones.
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
            plain = None if cell.missing else cell.text
            row.append(plain if cell.value is None else cell.value)
            if deviates:
                row.append(cell.deviation)
        rows.append(row)
    return csv(rows)


def latex(table: Table) -> str:
    """A table as LaTeX; needs the packages booktabs and graphicx."""
    width = len(table.columns) + 1
    lines = [
        r'\begin{table*}[t]',
        r'\centering',
        rf'\caption{{{escape.latex(table.title)}. {escape.latex(table.explanation)}}}',
        rf'\label{{tab:{table.slug}}}',
        r'\resizebox{\textwidth}{!}{%',
        rf'\begin{{tabular}}{{l{"c" * len(table.columns)}}}',
        r'\toprule',
    ]
    if table.groups:
        heads, rules, start = [], [], 2
        for group, members in table.groups:
            heads.append(rf'\multicolumn{{{members}}}{{c}}{{{escape.latex(group)}}}')
            if group:
                rules.append(rf'\cmidrule(lr){{{start}-{start + members - 1}}}')
            start += members
        lines += [' & '.join(['', *heads]) + r' \\', ' '.join(rules)]
    heads = [escape.latex(column.label) for column in table.columns]
    if len(heads) > _MOST_UPRIGHT:
        heads = [rf'\rotatebox{{90}}{{{head}}}' for head in heads]
    lines += [' & '.join([escape.latex(table.head), *heads]) + r' \\', r'\midrule']
    for place, line in enumerate(table.lines):
        if line.section:
            lines += [r'\midrule'] if place else []
            lines.append(
                rf'\multicolumn{{{width}}}{{l}}{{\emph{{{escape.latex(line.section)}}}}} \\'
            )
        lines.append(_latex_line(table, line))
    lines += [r'\bottomrule', r'\end{tabular}}', r'\end{table*}']
    return '\n'.join(lines) + '\n'


def _latex_line(table: Table, line: Line) -> str:
    quoted = line.source != MEASURED
    label = rf'\quad \emph{{{escape.latex(line.source)}}}' if quoted else escape.latex(line.label)
    cells = []
    for index, cell in enumerate(line.cells):
        shown = escape.latex(cell.text)
        if quoted:
            shown = rf'\emph{{{shown}}}'
        elif table.is_best(line, index):
            shown = rf'\textbf{{{shown}}}'
        if cell.deviation is not None:
            shown += rf' {{\tiny $\pm$ {cell.deviation:.1f}}}'
        cells.append(shown + (r'$^\dagger$' if cell.partial else ''))
    return ' & '.join([label, *cells]) + r' \\'


def html(table: Table) -> str:
    """A table as HTML, with its name and caption; classes name what a style sheet may set off."""
    turned = len(table.columns) > _MOST_UPRIGHT
    edges, start = set(), 0
    for _, members in table.groups:
        edges.add(start)
        start += members
    head = ''
    if table.groups:
        head = '<tr><th></th>' + ''.join(
            f'<th class="group edge" colspan="{members}">{escape.html(group)}</th>'
            for group, members in table.groups
        )
        head += '</tr>'
    head += f'<tr><th scope="col">{escape.html(table.head)}</th>'
    for index, column in enumerate(table.columns):
        classes = _classes(turned=turned, edge=index in edges)
        head += f'<th scope="col"{classes}><span>{escape.html(column.label)}</span></th>'
    head += '</tr>'
    rows = []
    for line in table.lines:
        if line.section:
            width = len(table.columns) + 1
            section = escape.html(line.section)
            rows.append(f'<tr class="section"><th colspan="{width}">{section}</th></tr>')
        rows.append(_html_line(table, line, edges))
    name = table.name[:1].upper() + table.name[1:]
    return (
        f'<h3 id="{table.slug}">{escape.html(name)}</h3>\n<div class="wide">'
        f'<table id="table-{table.slug}"><thead>{head}</thead>\n<tbody>'
        + '\n'.join(rows)
        + f'</tbody></table></div>\n<p class="caption">{escape.html(table.explanation)}</p>'
    )


def _html_line(table: Table, line: Line, edges: set[int]) -> str:
    quoted = line.source != MEASURED
    cells = ''
    for index, (cell, column) in enumerate(zip(line.cells, table.columns, strict=True)):
        classes = _classes(
            best=table.is_best(line, index), missing=cell.missing, edge=index in edges
        )
        tip = f' title="{escape.html(cell.note)}"' if cell.note else ''
        deviation = '' if cell.deviation is None else f'<small>± {cell.deviation:.1f}</small>'
        cells += (
            f'<td data-column="{escape.html(column.key)}"{classes}{tip}>'
            f'<span class="value">{escape.html(cell.text)}</span>'
            f'{PARTIAL if cell.partial else ""}{deviation}</td>'
        )
    return (
        f'<tr class="{escape.html(line.source)}" data-label="{escape.html(line.label)}">'
        f'<th scope="row">{escape.html(line.source if quoted else line.label)}</th>{cells}</tr>'
    )


def _classes(**on: bool) -> str:
    names = ' '.join(name for name, is_on in on.items() if is_on)
    return f' class="{names}"' if names else ''
