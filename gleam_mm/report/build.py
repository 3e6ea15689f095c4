"""Builds the whole report of studies and writes its files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.output import escape
from gleam_mm.output.tables import MEASURED, Table, csv, html, latex, markdown, table_csv
from gleam_mm.report import figures, page, paper, tables
from gleam_mm.report.ablation import ablation_table
from gleam_mm.report.suites import Suite, suites_of, validating
from gleam_mm.report.trials import Row, Study, open_study, rows
from gleam_mm.sweep.cells import COMPLETE, FAILED, RUNNING, WAITING
from gleam_mm.sweep.places import SWEEPS, is_url
from gleam_mm.sweep.plan import FINAL, SELECT, options_text
from gleam_mm.sweep.results import Result

_DONE = {
    FINAL: '{done} of {planned} final trainings are done.',
    SELECT: 'Of {planned} pairs of a method and a dataset, {done} have a training that chooses '
    'options: here is the best one of each so far.',
}
PAGE, MARKDOWN, LATEX, FINALS = 'report.html', 'report.md', 'report.tex', 'finals.csv'


@dataclass(frozen=True)
class Report:
    """A report: its tables, and what each file contains.

    Attributes:
        tables: All tables.
        files: Name of the file -> its text.
    """

    tables: tuple[Table, ...]
    files: dict[str, str]


class Part(NamedTuple):
    """What a report has on a suite and a backbone."""

    suite: Suite
    backbone: str
    rows: list[Row]
    tables: list[Table]
    phase: str

    @property
    def anchor(self) -> str:
        """Where the page has it."""
        return escape.file_name(f'{self.suite.key}-{self.backbone}')


def parts(studies: Sequence[Study], phase: str = FINAL) -> list[Part]:
    """What a report consists of; each part covers all of the studies.

    Args:
        studies: The studies.
        phase: ``final``, or ``select`` where the finals of studies are trainings that choose.

    Raises:
        UserError: The studies consist of no final trainings.
    """
    finals = [final for study in studies for final in study.finals]
    if not finals:
        names = ', '.join(study.name for study in studies)
        raise UserError(f'{names}: no final trainings to report, not even waiting ones')
    found = []
    for suite in suites_of(final.dataset for final in finals):
        if phase == SELECT:
            suite = validating(suite)
        gathered = rows(studies, suite)
        for backbone in dict.fromkeys(row.backbone for row in gathered):
            own = [row for row in gathered if row.backbone == backbone]
            found.append(Part(suite, backbone, own, _tables(suite, backbone, own), phase))
    return found


def build(studies: Sequence[Study]) -> Report:
    """Builds a report.

    Args:
        studies: One or more studies.

    Raises:
        UserError: The studies consist of no final trainings.
    """
    made = parts(studies)
    found = [table for part in made for table in part.tables]
    names = ', '.join(dict.fromkeys(study.name for study in studies))
    title = f'GLEAM-MM: {names if len(studies) == 1 else f"{len(studies)} studies"}'
    lead = (
        '<p class="lead">Measured accuracies of parameter-efficient methods'
        + (', beside those that the GLEAM paper prints.' if _has_paper(found) else '.')
        + (f' Studies: {escape.html(names)}.' if len(studies) > 1 else '')
        + f'</p>\n{page.overrides_notice(studies)}\n{links(made)}'
    )
    files = {
        PAGE: page.page(title, lead, facts(studies), map(section, made)),
        MARKDOWN: f'# {escape.markdown(title)}\n\n{escape.markdown(names)}: {_status(studies)}\n\n'
        + '\n'.join(map(markdown, found)),
        LATEX: f'% {escape.latex(names)}. Needs \\usepackage{{booktabs,graphicx}}.\n\n'
        + '\n'.join(map(latex, found)),
        FINALS: _finals_csv(studies),
        **{f'{table.slug}.csv': table_csv(table) for table in found},
    }
    return Report(tuple(found), files)


def links(made: Sequence[Part]) -> str:
    """Links to the parts of a page."""
    found = ''.join(
        f'<a href="#{part.anchor}">{escape.html(f"{part.suite.name}, {part.backbone}")}</a>'
        for part in made
    )
    return f'<nav>{found}</nav>'


def write(report: Report, folder: str | Path) -> list[Path]:
    """Writes the files of a report; older ones of the same names are replaced.

    Args:
        report: The report.
        folder: Where to; made if it does not exist.

    Returns:
        The paths of the files.
    """
    paths = []
    for name, text in report.files.items():
        paths.append(Path(folder) / name)
        write_bytes(paths[-1], text.encode())
    return paths


def make(
    storages: Sequence[str], names: Sequence[str] | None = None, folder: str | Path | None = None
) -> tuple[Report, list[Path]]:
    """Reads studies, builds their report and writes it.

    Args:
        storages: Names of sweeps, paths of SQLite files, or URLs of databases.
        names: Names of the studies in a single storage; may be left out where it holds one.
        folder: Where to write; may be left out for a single storage that is a file.

    Returns:
        The report, and the paths of its files.

    Raises:
        UserError: A study cannot be read, or the arguments do not fit each other.
    """
    if names and len(storages) > 1:
        raise UserError('--study names studies in one storage; give a single STUDY with it')
    folder = Path(folder) if folder else _beside(storages)
    if names:
        studies = [open_study(storages[0], name) for name in names]
    else:
        studies = [open_study(storage) for storage in storages]
    report = build(_told_apart(studies))
    return report, write(report, folder)


def _told_apart(studies: Sequence[Study]) -> list[Study]:
    """Studies, of which those that share a name are called after their storages as well.

    Raises:
        UserError: A study was given twice, of which rows would differ in nothing.
    """
    given: dict[str, Study] = {}
    for study in studies:
        first = given.setdefault(study.identity, study)
        if first is not study:
            raise UserError(
                f'{escape.terminal(study.storage)}: its study {escape.terminal(study.name)} was '
                f'given twice, also in {escape.terminal(first.storage)}; give it once'
            )
    names = Counter(study.name for study in studies)
    return [
        replace(study, name=f'{study.name} in {study.storage}') if names[study.name] > 1 else study
        for study in studies
    ]


def _beside(storages: Sequence[str]) -> Path:
    """The folder of the report of a single storage that is a file."""
    if len(storages) == 1:
        for path in (Path(storages[0]), SWEEPS / storages[0]):
            if path.exists():
                return (path if path.is_dir() else path.parent) / 'report'
        if not is_url(storages[0]):
            return SWEEPS / storages[0] / 'report'  # opening it tells that it does not exist
    raise UserError('say where to write the report: --out FOLDER')


def _tables(suite: Suite, backbone: str, own: Sequence[Row]) -> list[Table]:
    made = [tables.tasks_table(suite, backbone, own)]
    further = (tables.groups_table, tables.search_table, ablation_table)
    for make in (*(further if suite.shots is None else ()), tables.cost_table):
        if table := make(suite, backbone, own):
            made.append(table)
    return made


def _number(results: Sequence[Result], phase: str) -> int:
    """How many there are, where options are chosen by all seeds of a dataset together."""
    return len({result.dataset for result in results} if phase == SELECT else results)


def section(part: Part) -> str:
    """A part of the page, as HTML."""
    suite, own, made = part.suite, part.rows, part.tables
    palette = figures.Palette(list(dict.fromkeys(row.name for row in own)))
    names = [row.name for row in own]
    about = tables.context(suite, part.backbone)
    done = sum(_number(row.complete, part.phase) for row in own)
    planned = sum(_number(row.finals, part.phase) for row in own)
    pieces = [
        f'<section id="{part.anchor}">\n<h2>{escape.html(about)}</h2>\n'
        f'<p>{_DONE[part.phase].format(done=done, planned=planned)}</p>'
    ]
    pieces += [html(made[0])]
    if suite.shots is not None:
        if charts := figures.shots(suite, own, palette):
            pieces += [
                '<h3>Accuracy against shots</h3>',
                page.legend(names, palette),
                page.panels(charts, f'Accuracy against shots, {about}', 'shots'),
            ]
        pieces += map(html, made[1:])
    else:
        if drawn := figures.trade_off(suite, part.backbone, own, palette):
            number = ' (Figure 1 of the paper)' if suite.key == paper.VTAB else ''
            title = f'Accuracy against trained parameters, {about}'
            pieces += [
                f'<h3>Accuracy against parameters{number}</h3>',
                page.figure(drawn[0], title, 'trade-off', drawn[1]),
            ]
        pieces += map(html, made[1:])
        if charts := figures.bars(suite, own, palette):
            pieces += ['<h3>Accuracy by task</h3>', _bars_caption(suite, own)]
            for group, drawings in charts.items():
                pieces += [f'<h4>{group}</h4>', page.panels(drawings, f'Accuracy, {about}', 'bars')]
    if charts := figures.curves(suite, own, palette):
        pieces += [
            '<h3>Training curves</h3>',
            '<p class="caption">Loss on the training images, the mean of each epoch; a line for '
            'each seed.</p>',
            page.legend(names, palette),
            page.panels(charts, f'Training loss, {about}', 'curves'),
        ]
    return '\n'.join(pieces) + '\n</section>'


def _finals_csv(studies: Sequence[Study]) -> str:
    """Every final training, done or not: what all tables are made from."""
    head = ('study', 'backbone', 'method', 'dataset', 'seed', 'options', 'overrides', 'state')
    rows = [
        (
            study.name,
            final.backbone,
            final.method,
            final.dataset,
            final.seed,
            options_text(final.options),
            options_text(study.overrides),
            final.state,
            final.accuracy,
            final.parameters,
            final.seconds,
        )
        for study in studies
        for final in study.finals
    ]
    return csv([(*head, 'accuracy', 'parameters', 'seconds'), *rows])


def _bars_caption(suite: Suite, own: Sequence[Row]) -> str:
    text = 'Top-1 accuracy in %, mean and standard deviation over seeds.'
    if any((published := row.paper(suite)) and published.tasks for row in own):
        text += " Dashed marks: the paper's."
    return f'<p class="caption">{text}</p>'


def _has_paper(found: Sequence[Table]) -> bool:
    return any(line.source != MEASURED for table in found for line in table.lines)


def facts(studies: Sequence[Study]) -> list[tuple[str, str]]:
    """How far studies are, in names and values."""
    results = [result for study in studies for result in study.results]
    found = []
    for phase, name in ((FINAL, 'final trainings'), (SELECT, 'selection trainings')):
        states = [result.state for result in results if result.phase == phase]
        if states:
            found.append((name, f'{states.count(COMPLETE)} of {len(states)}'))
    for state in (RUNNING, WAITING, FAILED):
        count = sum(result.state == state for result in results)
        if count:
            found.append((state, str(count)))
    hours = sum(result.seconds or 0 for result in results) / 3600
    found.append(('training time', f'{hours:.1f} h' if hours >= 1 else f'{hours * 60:.0f} min'))
    return found


def _status(studies: Sequence[Study]) -> str:
    return ', '.join(f'{name}: {value}' for name, value in facts(studies)) + '.'
