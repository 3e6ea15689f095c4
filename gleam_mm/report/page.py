"""The report as one HTML page that needs nothing but itself: no network, no scripts."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from gleam_mm.output import escape
from gleam_mm.output.figures import inline_svg
from gleam_mm.report.figures import Palette
from gleam_mm.report.trials import Study
from gleam_mm.sweep.plan import options_text
from gleam_mm.version import __version__

STYLE = """
:root {
  --ink: #1b1f24; --soft: #5b6470; --faint: #8b939e; --rule: #d9dde3; --paper: #fff;
  --tint: #f6f7f9; --line: #eceff2; --warm: #e08a1e; --warned: #fdf6ea; --accent: #8f1b2b;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --ink: #e4e7eb; --soft: #a3abb6; --faint: #7d8590; --rule: #363c44; --line: #2a2f36;
    --paper: #16191d; --tint: #0f1114; --warm: #e08a1e; --warned: #2b2418; --accent: #f08a98;
  }
  svg, .legend i { filter: invert(0.9) hue-rotate(180deg); }  /* their colours stay apart */
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
.notice {
  border-left: 3px solid var(--warm); background: var(--warned); padding: 8px 14px; margin: 14px 0;
}
code { font-size: 13px; overflow-wrap: anywhere; }
.notice code { white-space: normal; margin-right: 10px; }
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
tr.measured + tr.measured > * { border-top: 1px solid var(--line); }
tr.paper + tr.measured > * { border-top: 1px solid var(--line); }
tr.paper > * { color: var(--faint); font-style: italic; font-weight: 400; padding-top: 0; }
tr.paper th { padding-left: 12px; }
td small { display: block; color: var(--soft); font-size: 10.5px; line-height: 1.1; }
td.best .value { font-weight: 700; }
td.missing { color: var(--faint); }
.caption { color: var(--soft); font-size: 13px; max-width: 110ch; }
figure { margin: 12px 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; }
svg.trade-off { min-width: 720px; }
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
@media (max-width: 720px) {
  main { padding: 20px 14px 40px; }
  h1 { font-size: 24px; overflow-wrap: anywhere; } h2 { margin-top: 36px; }
}
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


TESTED = (
    'Each measured number is the top-1 accuracy on a test split that was opened once for each '
    'seed, at the last epoch. Options were chosen on a validation split; trainings that chose them '
    'are not shown.'
)


def page(
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    body: Iterable[str],
    note: str = TESTED,
    refresh: int | None = None,
) -> str:
    """The whole page.

    Args:
        title: Its title.
        lead: What it is about, as HTML.
        facts: Names and values to begin with.
        body: Sections, as HTML.
        note: What the numbers are, for its foot.
        refresh: Seconds after which a browser loads the page again; by default it does not.
    """
    again = '' if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n'
    listed = ''.join(
        f'<div><dt>{escape.html(name)}</dt><dd>{escape.html(value)}</dd></div>'
        for name, value in facts
    )
    title = escape.html(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'{again}<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n'
        f'<header>\n<h1>{title}</h1>\n{lead}\n<dl class="facts">{listed}</dl>\n</header>\n'
        + '\n'.join(body)
        + f'\n<footer>\n<p>{escape.html(note)}</p>\n<p>GLEAM-MM {__version__}</p>\n'
        '</footer>\n</main>\n</body>\n</html>\n'
    )


def overrides_notice(studies: Iterable[Study]) -> str:
    """Warns of settings that differ from the recipes'."""
    listed = ''.join(
        f'<br>{escape.html(study.name)}: '
        + ' '.join(
            f'<code>{escape.html(options_text({key: value}))}</code>'
            for key, value in study.changes.items()
        )
        for study in studies
        if study.changes
    )
    text = 'Trained with other settings than the recipes say:'
    return f'<p class="notice">{text}{listed}</p>' if listed else ''


def legend(names: Iterable[str], palette: Palette) -> str:
    """What the colours mean."""
    entries = ''.join(
        f'<span><i style="background:{palette.colour(name)}"></i>{escape.html(name)}</span>'
        for name in dict.fromkeys(names)
    )
    return f'<div class="legend">{entries}</div>'


def figure(drawing: Figure, title: str, kind: str, caption: str) -> str:
    """A figure of the full width; where it has no room, the page scrolls it.

    Args:
        drawing: The figure.
        title: What it shows, of its own on the page.
        kind: Class of the figure, for styles.
        caption: How to read it.
    """
    return (
        f'<figure><div class="wide">{inline_svg(drawing, title, kind)}</div>'
        f'<figcaption class="caption">{escape.html(caption)}</figcaption></figure>'
    )


def panels(charts: Mapping[str, Figure], about: str, kind: str) -> str:
    """Small figures side by side.

    Args:
        charts: What stands above a figure -> the figure.
        about: What they show, of its own on the page.
        kind: Class of the figures, for styles.
    """
    inner = '\n'.join(
        f'<figure><figcaption>{escape.html(label)}</figcaption>'
        f'{inline_svg(chart, f"{about}, {label}", kind)}</figure>'
        for label, chart in charts.items()
    )
    return f'<div class="panels">\n{inner}\n</div>'
