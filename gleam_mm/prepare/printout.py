"""What tools/prepare_data.py prints: tables of checked lists and of planned ones."""

from collections.abc import Sequence

from gleam_mm.output import escape
from gleam_mm.prepare.build import Published
from gleam_mm.prepare.plan import Plan
from gleam_mm.prepare.verify import ListReport

_SHOWN = 20
_COLUMNS = ('task', 'split', 'lines', 'classes', 'a class', 'choice of images', '')
_WIDTHS = (21, 18, 7, 9, 11, 17, 0)


def header() -> str:
    """The head of the table of checked lists."""
    return _row(_COLUMNS) + '\n' + _row(tuple('-' * width for width in _WIDTHS))


def row(report: ListReport) -> str:
    """A checked list: lines, classes that occur and exist, fewest and most lines a class."""
    counts = report.counts.values()
    each = f'{min(counts)}-{max(counts)}' if counts else '-'
    problems = [
        f'{len(found)} {what if len(found) > 1 else what.removesuffix("s")}'
        for found, what in ((report.faults, 'faults'), (report.warnings, 'warnings'))
        if found
    ]
    return _row(
        (
            report.task,
            report.split,
            f'{report.lines:,}',
            f'{len(report.counts)}/{report.num_classes}',
            each,
            report.choice or '-',
            ', '.join(problems) or 'ok',
        )
    )


def per_class(report: ListReport) -> str:
    """The lines of every class of a list."""
    cells = [f'{label}: {report.counts[label]}' for label in range(report.num_classes)]
    return '\n'.join('    ' + '  '.join(cells[at : at + 12]) for at in range(0, len(cells), 12))


def problems(reports: Sequence[ListReport], every: bool = False) -> str:
    """Warnings and faults; of many of one list the first ones, unless ``every`` one is wanted."""
    lines, shown = [], None if every else _SHOWN
    for kind in ('warnings', 'faults'):
        for report in reports:
            found = getattr(report, kind)
            lines += [
                f'{kind.removesuffix("s")}: {escape.terminal(message)}' for message in found[:shown]
            ]
            if shown is not None and len(found) > shown:
                lines.append(
                    f'{kind.removesuffix("s")}: {len(found) - shown:,} more in {report.task}, '
                    f'{report.split}; --all tells them'
                )
    return '\n'.join(lines)


def summary(reports: Sequence[ListReport]) -> str:
    """One line that counts lists, lines, warnings and faults."""
    faults = sum(len(report.faults) for report in reports)
    warnings = sum(len(report.warnings) for report in reports)
    lines = sum(report.lines for report in reports)
    return f'{len(reports)} lists, {lines:,} lines: {faults:,} faults, {warnings:,} warnings'


def describe_plan(plan: Plan | Published, root: object) -> str:
    """What a plan would write, and what its choice of images is worth."""
    manifest = plan.manifest
    source = escape.terminal(manifest['source']['path'])
    lines = [f'{plan.task} -> {root}/{plan.task}', f'  source: {source}']
    if isinstance(plan, Plan):
        slices = manifest.get('slices', {})
        for name, split in plan.lists.items():
            of = slices.get(name.removesuffix('.txt'))
            lines.append(f'  {name}: {split.size:,} images' + (f' = {of}' if of else ''))
    else:
        lines += [f'  {name}: {size:,} lines' for name, size in manifest['lists'].items()]
        lines.append(f'  images: {len(plan.images):,} files')
    lines.append(f'  {notice(manifest)}')
    return '\n'.join(lines)


def notice(manifest: dict) -> str:
    """What the choice of images is worth."""
    return escape.terminal(f'choice of images: {manifest["choice"]}. {manifest["note"]}')


def _row(cells: Sequence[str]) -> str:
    padded = [
        cell.rjust(width) if column in (2, 3, 4) else cell.ljust(width)
        for column, (cell, width) in enumerate(
            zip(map(escape.terminal, cells), _WIDTHS, strict=True)
        )
    ]
    return '  '.join(padded).rstrip()
