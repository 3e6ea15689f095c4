"""The report as one HTML page that needs nothing but itself: no network, no scripts."""

import itertools
from collections.abc import Iterable, Sequence
from html import escape

from gleam_mm.report import formats
from gleam_mm.report.figures import Palette
from gleam_mm.report.tables import Cell, Line, Table
from gleam_mm.report.trials import Study
from gleam_mm.sweep.plan import options_text
from gleam_mm.version import __version__

STYLE = """
:root {
  --ink: #1b1f24; --soft: #5b6470; --faint: #8b939e; --rule: #d9dde3; --paper: #fff;
  --tint: #f6f7f9; --accent: #8f1b2b;
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0; background: var(--tint); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 40px 32px 64px; background: var(--paper); }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 {
  font-size: 22px; margin: 56px 0 8px; padding-top: 20px; border-top: 2px solid var(--ink);
  letter-spacing: -0.01em;
}
h3 { font-size: 16px; margin: 36px 0 6px; }
h4 { font-size: 13px; margin: 18px 0 4px; color: var(--soft); font-weight: 600; }
p { margin: 6px 0; max-width: 78ch; }
a { color: var(--accent); }
.lead { color: var(--soft); font-size: 16px; }
.notice { border-left: 3px solid #e08a1e; background: #fdf6ea; padding: 8px 14px; margin: 14px 0; }
.facts { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 20px 0 8px; padding: 0; }
.facts div { min-width: 96px; }
.facts dt { color: var(--soft); font-size: 12px; }
.facts dd { margin: 0; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
nav { margin: 18px 0 0; font-size: 14px; }
nav a { margin-right: 18px; text-decoration: none; border-bottom: 1px solid var(--rule); }
.wide { overflow-x: auto; margin: 12px 0 4px; }
table {
  border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink);
}
th, td { padding: 5px 7px; text-align: center; white-space: nowrap; }
th { font-weight: 600; }
thead tr:last-child > * { border-bottom: 1px solid var(--ink); }
thead th.group { border-bottom: 1px solid var(--rule); font-size: 12px; color: var(--soft); }
thead th { vertical-align: bottom; }
th.turned span { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: 500; }
th:first-child {
  text-align: left; position: sticky; left: 0; background: var(--paper); padding-left: 2px;
}
tbody th { font-weight: 600; }
td.edge, th.edge { border-left: 1px solid var(--rule); }
tr.section th { color: var(--soft); font-weight: 600; font-size: 12px; padding-top: 14px; }
tr.section ~ tr.section th { border-top: 1px solid var(--rule); }
tr.measured td { padding-bottom: 4px; }
tr.measured + tr.measured > * { border-top: 1px solid #eceff2; }
tr.paper + tr.measured > * { border-top: 1px solid #eceff2; }
tr.paper > * { color: var(--faint); font-style: italic; font-weight: 400; padding-top: 0; }
tr.paper th { padding-left: 12px; }
td small { display: block; color: var(--soft); font-size: 10.5px; line-height: 1.1; }
td.best .value { font-weight: 700; }
td.missing { color: var(--faint); }
.caption { color: var(--soft); font-size: 13px; max-width: 110ch; }
figure { margin: 12px 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: inherit; fill: var(--ink); }
svg .grid { stroke: #e6e9ed; } svg .axis { stroke: #6b747f; }
svg .tick { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }
svg .label { fill: var(--soft); font-size: 12.5px; }
svg .name { font-size: 12.5px; paint-order: stroke; stroke: #fff; stroke-width: 3px; }
svg .name.measured { font-weight: 650; } svg .name.paper { fill: var(--soft); }
svg .leader { stroke: #b6bdc6; } svg .link { stroke-dasharray: 2 3; opacity: 0.8; }
svg .whisker { stroke-width: 1.6; } svg .whisker.dark { stroke: #1b1f24; stroke-width: 1.2; }
svg circle.paper { fill: #fff; stroke-width: 1.6; }
svg circle.paper:not([stroke]) { stroke: #8b939e; }
svg circle.measured { stroke: #fff; stroke-width: 1.2; }
svg line.paper { stroke: #1b1f24; stroke-width: 2; stroke-dasharray: 2 1.5; }
svg path { fill: none; } svg .curve { stroke-width: 1.6; stroke-linejoin: round; opacity: 0.85; }
svg .dot { stroke-width: 0; }
svg.bars .bar-name, svg.bars .bar-value { font-size: 11.5px; }
svg.bars .bar-value { font-variant-numeric: tabular-nums; }
svg.bars .tick, svg.curves .tick, svg.shots .tick { font-size: 10.5px; }
svg.curves .label, svg.shots .label { font-size: 11px; }
.panels {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 4px 28px;
}
.panels figure { margin: 6px 0; break-inside: avoid; }
.panels figcaption { font-size: 13px; font-weight: 600; margin-bottom: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 13px; margin: 8px 0; }
.legend i {
  display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px;
}
footer { margin-top: 56px; border-top: 1px solid var(--rule); padding-top: 12px; }
footer, footer p { color: var(--soft); font-size: 13px; }
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body, main { background: #fff; }
  body { font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .wide { overflow: visible; }
  table { font-size: 8.4pt; } th, td { padding: 2px 3px; } td small { font-size: 6.6pt; }
  .wide { break-inside: avoid; }
  th:first-child { position: static; }
  section + section h2 { break-before: page; } h2, h3, h4 { break-after: avoid; }
  .caption { font-size: 8.4pt; }
  tr, figure { break-inside: avoid; }
  .trade-off { max-width: 210mm; margin: 0 auto; }
  .panels { grid-template-columns: repeat(4, 1fr); gap: 2mm 5mm; }
}
"""


def page(title: str, lead: str, facts: Sequence[tuple[str, str]], body: Sequence[str]) -> str:
    """The whole page.

    Args:
        title: Its title.
        lead: What it is about, as HTML.
        facts: Names and values to begin with.
        body: Sections, as HTML.
    """
    listed = ''.join(
        f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for name, value in facts
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n'
        f'<header>\n<h1>{escape(title)}</h1>\n{lead}\n<dl class="facts">{listed}</dl>\n</header>\n'
        + '\n'.join(body)
        + '\n<footer>\n<p>Each measured number is the top-1 accuracy on a test split that was '
        'opened once for each seed, at the last epoch. Options were chosen on a validation split; '
        f'trainings that chose them are not shown.</p>\n<p>GLEAM-MM {escape(__version__)}</p>\n'
        '</footer>\n</main>\n</body>\n</html>\n'
    )


def overrides_notice(studies: Iterable[Study]) -> str:
    """Warns of settings that differ from the recipes'."""
    listed = ''.join(
        f'<br>{escape(study.name)}: <code>{escape(options_text(study.changes))}</code>'
        for study in studies
        if study.changes
    )
    text = 'Trained with other settings than the recipes say:'
    return f'<p class="notice">{text}{listed}</p>' if listed else ''


def table(table: Table) -> str:
    """A table, with its title and caption."""
    turned = len(table.columns) > 14
    groups = [
        (group, len(list(members)))
        for group, members in itertools.groupby(table.columns, key=lambda column: column.group)
    ]
    edges, start = set(), 0
    if any(group for group, _ in groups):
        for _, width in groups:
            edges.add(start)
            start += width
    head = ''
    if edges:
        head = '<tr><th></th>' + ''.join(
            f'<th class="group edge" colspan="{width}">{escape(group)}</th>'
            for group, width in groups
        )
        head += '</tr>'
    head += f'<tr><th scope="col">{escape(table.head)}</th>'
    for index, column in enumerate(table.columns):
        classes = ['turned'] if turned else []
        classes += ['edge'] if index in edges else []
        head += f'<th scope="col"{_classes(classes)}><span>{escape(column.label)}</span></th>'
    head += '</tr>'
    rows = []
    for line in table.lines:
        if line.section:
            width = len(table.columns) + 1
            rows.append(
                f'<tr class="section"><th colspan="{width}">{escape(line.section)}</th></tr>'
            )
        rows.append(_line(table, line, edges))
    note = f' {formats.PARTIAL_NOTE}' if formats.has_partial(table) else ''
    return (
        f'<h3 id="{table.key}">{escape(_capitalised(table.name))}</h3>\n<div class="wide">'
        f'<table id="table-{table.key}"><thead>{head}</thead>\n<tbody>'
        + '\n'.join(rows)
        + f'</tbody></table></div>\n<p class="caption">{escape(table.caption)}{note}</p>'
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _line(table: Table, line: Line, edges: set[int]) -> str:
    label = formats.PAPER if line.source == formats.PAPER else line.label
    cells = ''.join(
        _cell(cell, table.columns[index].key, table.is_best(line, index), index in edges)
        for index, cell in enumerate(line.cells)
    )
    return (
        f'<tr class="{line.source}" data-label="{escape(line.label)}">'
        f'<th scope="row">{escape(label)}</th>{cells}</tr>'
    )


def _cell(cell: Cell, key: str, best: bool, edge: bool) -> str:
    classes = [
        name for name, on in (('best', best), ('missing', cell.missing), ('edge', edge)) if on
    ]
    tip = f' title="{escape(cell.note)}"' if cell.note else ''
    deviation = '' if cell.deviation is None else f'<small>± {cell.deviation:.1f}</small>'
    mark = formats.PARTIAL if cell.partial else ''
    return (
        f'<td data-column="{escape(key)}"{_classes(classes)}{tip}>'
        f'<span class="value">{escape(cell.text)}</span>{mark}{deviation}</td>'
    )


def _classes(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ''


def legend(names: Iterable[str], palette: Palette) -> str:
    """What the colours mean."""
    entries = ''.join(
        f'<span><i style="background:{palette.colour(name)}"></i>{escape(name)}</span>'
        for name in dict.fromkeys(names)
    )
    return f'<div class="legend">{entries}</div>'


def figure(drawing: str, caption: str = '') -> str:
    """A figure of the full width."""
    text = f'<figcaption class="caption">{escape(caption)}</figcaption>' if caption else ''
    return f'<figure>{drawing}{text}</figure>'


def panels(charts: dict[str, str]) -> str:
    """Small figures side by side."""
    inner = '\n'.join(
        f'<figure><figcaption>{escape(label)}</figcaption>{chart}</figure>'
        for label, chart in charts.items()
    )
    return f'<div class="panels">\n{inner}\n</div>'
