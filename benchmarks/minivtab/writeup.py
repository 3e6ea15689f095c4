"""The page of results, from the record alone."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import charts
import claims
import inside
import records
import verdicts
from matplotlib.figure import Figure
from records import Record

from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.minivtab import MINI_TASKS
from gleam_mm.output.escape import markdown, markdown_code
from gleam_mm.output.figures import save
from gleam_mm.output.tables import MISSING, count, number, pipes
from gleam_mm.report.suites import SUITES, Suite
from gleam_mm.report.trials import Row
from gleam_mm.sweep.plan import FINAL, SELECT, Variant
from gleam_mm.sweep.results import Result

PAGE = 'RESULTS.md'
FRONT, DIFFERENCES = 'front', 'differences'
SUITE: Suite = next(suite for suite in SUITES if suite.key == 'mini')


@dataclass(frozen=True)
class Guess:
    """What guessing does on a task.

    Attributes:
        label: What tables call the task.
        chance: The share that it gets right.
        images: How many images the test split has.
    """

    label: str
    chance: float
    images: int


_GUESSES = {
    dataset: Guess(label, 1 / task.num_classes, task.test_size)
    for dataset, label in SUITE.tasks.items()
    for task in [MINI_TASKS[dataset.removeprefix('mini-')]]
}

_RUNS = '\n'.join(f'python tools/sweep.py run {study} --workers 2' for study in claims.STUDIES)
_TOP = f"""\
# MiniVTAB: results

*Made by `benchmarks/minivtab/page.py` from [results.csv](results.csv) and
[studies.json](studies.json); do not edit it by hand.*

Nine small tasks in three groups ([docs/minivtab.md](../../docs/minivtab.md)) on the backbone
`{claims.BACKBONE}`. Accuracy is top-1 in % on the test split, which a final training opens once, at
its last epoch, after it has trained on 1,000 images. Numbers of the paper's are named as such
wherever they stand.

<!-- not run: it trains for hours -->
```bash
make bench   # or, by hand; a sweep that was stopped goes on where it was:
python tools/sweep.py estimate minivtab
{_RUNS}
python benchmarks/minivtab/collect.py   # studies -> results.csv, studies.json
python benchmarks/minivtab/page.py      # these two -> this page and its figures
```"""

_VERDICTS = 'The rule is [below](#how-claims-are-tested); in brackets the difference in points.'

_MAIN = """\
By trained parameters, head excluded. *seeds*: the fewest and the most that a task has. *average*:
the mean of the three group means, only where all nine tasks are there; *SD*: its standard deviation
over seeds, where all tasks have the same ones. Bold: the highest number of a column, which by
itself decides nothing."""

_FRONT = """\
Left, measured here: the averages of the table above; whiskers are standard deviations over seeds.
Right, quoted: the paper's averages over the 19 tasks of VTAB-1K on ViT-B/16. Tasks, backbones and
axes of the panels differ: heights compare within a panel only. The public codes behind most such
rows test after every epoch or every tenth and print the best on test
([methods](../../docs/methods.md)); here each test split is opened once, at the last epoch."""

_AT_CHANCE = """\
Trainings that learned nothing, or unlearned it: their accuracy on test is at most three standard
errors above that of guessing. They count in all means and comparisons, so that these may tell how
stable a method is rather than how good."""

_LARGER = """\
Beside the claim: of each method the largest variant with fewer parameters than the GLEAM. GLEAM has
more here, so that a difference above 0 says nothing for the claim. p is not corrected."""

_RATES = """\
No test split is open here. Bold: the highest mean, of equal ones the lowest rate, where all
trainings of the method are complete; † is at the edge of the rates that were tried. *used*: in the
final trainings; ‡ is not the one in bold."""


def write(folder: Path) -> list[Path]:
    """Writes the page and its figures beside the record.

    Args:
        folder: Where ``results.csv`` is.

    Returns:
        What was written.

    Raises:
        UserError: There is no record, or a file is not what it should be.
    """
    trainings = records.read(folder / records.CSV)
    if not trainings:
        raise UserError(
            f'{folder / records.CSV}: nothing is recorded; collect.py beside it reads the studies'
        )
    trainings = [row for row in trainings if row.study not in claims.TUNED]
    text, figures = build(
        trainings,
        records.read_json(folder / records.STUDIES) or {},
        records.read_json(folder / inside.HOMOGENEITY),
    )
    written = [folder / PAGE]
    write_bytes(written[0], text.encode())
    for name, draw in figures.items():
        written += save(draw(), folder / name, 'svg', 'png')
    return written


def build(
    trainings: Sequence[Record],
    notes: Mapping[str, Mapping[str, Any]],
    homogeneity: Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, Callable[[], Figure]]]:
    """Builds the page.

    Args:
        trainings: The record.
        notes: Study -> what ``studies.json`` says of it.
        homogeneity: What ``tools/analyze.py homogeneity`` wrote, where it was run.

    Returns:
        The page as Markdown, and by the name of each of its figures what draws it.
    """
    own = [row for study in claims.STUDIES for row in trainings if row.study == study]
    scores, parameters = records.scores(own), records.parameters(own)
    rows = {study: _rows(trainings, study) for study in _studies(trainings)}
    main = _compared(trainings)
    compared = records.parameters(row for row in own if row.study in claims.METHODS)
    front, larger = claims.fronts(compared)
    tested = (claims.LADDER, front, claims.ABLATION, claims.WIRING, claims.SECOND_RATE)
    judged = {claim.title: verdicts.judge(claim, scores) for claim in tested}
    ladder, fronts, ablation, wiring, rate = (
        verdicts.section(claim, judged[claim.title], parameters) for claim in tested
    )
    figures = {}

    parts = [_TOP, state(trainings, notes), '## Verdicts', verdicts.summary(judged), _VERDICTS]
    parts += ['## All methods', _MAIN, _accuracies(main)]
    if points := measured(trainings):
        figures[FRONT] = partial(charts.front, points, f'Measured: MiniVTAB, {claims.BACKBONE}')
        parts += ['## Accuracy against parameters', _picture(FRONT, 'Accuracy and parameters')]
        parts += [_FRONT + _left_out(points, main)]
    if guessing := at_chance(own):
        parts += ['## Trainings that ended at chance', _AT_CHANCE, guessing]
    parts += ['## How claims are tested', verdicts.RULE, ladder, fronts]
    if unknown := [row.method for row in main if row.method not in parameters]:
        parts.append(
            'Comparisons of claim 2 are not final: how many parameters a method has is known '
            f'with its first training, of which these have none: {_names(unknown)}.'
        )
    if larger:
        looked = [verdicts.look_at(comparison, scores) for comparison in larger]
        parts += [_LARGER, verdicts.lines(looked, parameters)]
    parts.append(ablation)
    if homogeneity:
        parts += ['## Claim 4: are updates alike across layers?', inside.updates(homogeneity)]
        parts.append(inside.command(homogeneity, 'python tools/analyze.py'))
    parts.append(wiring)
    variants = {
        'Table 2 and Figure 5 of the paper': judged[claims.ABLATION.title],
        'Wiring': judged[claims.WIRING.title],
    }
    if any(one.paired for found in variants.values() for one in found):
        figures[DIFFERENCES] = partial(charts.differences, variants, len(SUITE.tasks))
        parts.append('## What each variant gains over GLEAM-L')
        parts.append(_picture(DIFFERENCES, 'Differences between variants and GLEAM-L'))
    baseline = [row for row in main if row.method == claims.BASELINE]
    for study, others in rows.items():
        if others and study not in claims.METHODS:
            parts += [f'## Accuracies of {markdown_code(study)}', _accuracies([*baseline, *others])]
    parts += ['## How learning rates were chosen', _rates(trainings, _used_rates(notes)), rate]
    parts += _not_compared(own, judged)
    return '\n\n'.join(parts) + '\n', figures


def _used_rates(notes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Method -> learning rate of its final trainings."""
    return {
        method: rate
        for study in claims.METHODS
        for method, rate in notes.get(study, {}).get('rates', {}).items()
    }


def _not_compared(
    trainings: Iterable[Record], judged: Mapping[str, Sequence[verdicts.Judged]]
) -> list[str]:
    """Names variants without a comparison, lest a renamed one goes unnoticed."""
    comparisons = [one.comparison for found in judged.values() for one in found]
    compared = {name for one in comparisons for name in (one.first, one.second)}
    variants = {row.method for row in trainings if row.study in claims.VARIED}
    rest = sorted(variants - compared)
    return [f'No comparison has {_names(rest)}.'] if rest else []


def _studies(trainings: Iterable[Record], studies: Sequence[str] = claims.STUDIES) -> list[str]:
    """All studies that are recorded, those that make the benchmark complete first."""
    found = {row.study for row in trainings}
    known = [study for study in studies if study in found]
    return known + sorted(found - set(known))


def _rows(trainings: Iterable[Record], study: str) -> list[Row]:
    """The final trainings of a study by method, by rising parameters."""
    by_method: dict[str, list[Result]] = {}
    for row in trainings:
        if row.study == study and row.phase == FINAL:
            result = Result(
                backbone=claims.BACKBONE,
                method=row.method,
                dataset=row.dataset,
                phase=row.phase,
                seed=row.seed,
                options={},
                state=row.state,
                accuracy=row.accuracy,
                parameters=row.parameters,
                seconds=row.seconds,
            )
            by_method.setdefault(row.method, []).append(result)
    rows = [
        Row(claims.BACKBONE, method, Variant(method), tuple(finals))
        for method, finals in by_method.items()
    ]
    return _by_parameters(rows)


def _compared(trainings: Sequence[Record]) -> list[Row]:
    """The rows of the table of all methods."""
    return _by_parameters(row for study in claims.METHODS for row in _rows(trainings, study))


def _by_parameters(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.parameters is None, row.parameters or 0, row.method))


def state(
    trainings: Sequence[Record],
    notes: Mapping[str, Mapping[str, Any]],
    studies: Sequence[str] = claims.STUDIES,
) -> str:
    """How much of the benchmark is done, and what it was done with.

    Args:
        trainings: The record.
        notes: Study -> what ``studies.json`` says of it.
        studies: The studies that make it complete.
    """
    texts = ('study', 'phase', 'training', 'machine', 'software')
    numbers = ('complete', 'failed', 'planned', 'core hours', 'collected')
    body = []
    recorded = _studies(trainings, studies)
    for study in recorded:
        rows = [row for row in trainings if row.study == study]
        note = notes.get(study)
        seconds = sum(row.seconds for row in rows if row.seconds is not None)
        body.append(
            [
                markdown_code(study),
                ', '.join(sorted({row.phase for row in rows}, reverse=True)),
                *((_training(note), _machine(note), _software(note)) if note else [MISSING] * 3),
                str(sum(row.accuracy is not None for row in rows)),
                str(sum(row.state == records.FAILED for row in rows)),
                str(len(rows)),
                f'{seconds * note["threads"] / 3600:.1f}' if note else MISSING,
                note['collected'] if note else MISSING,
            ]
        )
    parts = [pipes((*texts, *numbers), body, texts)]
    complete = sum(row.accuracy is not None for row in trainings)
    missing = [study for study in studies if study not in recorded]
    if missing or complete < len(trainings):
        lacks = []
        if complete < len(trainings):
            lacks.append(f'{complete} of {len(trainings)} planned trainings are complete')
        if missing:
            lacks.append(f'nothing is recorded of {_names(missing)}')
        parts.append(
            f'**The benchmark is not complete: {", and ".join(lacks)}.** Means are over what is '
            'there, and each comparison says how many pairs it has.'
        )
    return '\n\n'.join(parts)


def _training(note: Mapping[str, Any]) -> str:
    changes = ''.join(
        f', {markdown_code(f"{key}={value}")}' for key, value in note['options'].items()
    )
    return f'{note["epochs"]} epochs, batch {note["batch_size"]}, {note["dtype"]}{changes}'


def _machine(note: Mapping[str, Any]) -> str:
    return markdown(
        f'{note["processor"]}, {note["cores"]} cores; workers: {note["workers"]}, threads of each: '
        f'{note["threads"]}'
    )


def _software(note: Mapping[str, Any]) -> str:
    packages = ', '.join(f'{name} {note[name]}' for name in ('torch', 'mmengine', 'mmpretrain'))
    commit = f' at {note["commit"]}' if note['commit'] else ''
    return markdown(f'gleam-mm {note["gleam_mm"]}{commit}, {packages}, Python {note["python"]}')


def _accuracies(rows: Sequence[Row]) -> str:
    """A table of methods by tasks, group means and average; the highest of each column in bold.

    Methods of which nothing is done yet are named below it.
    """
    waiting = [row.method for row in rows if not row.complete]
    rows = [row for row in rows if row.complete]
    if not rows:
        return 'Nothing is done yet.'
    below = f'\n\nNothing is done yet of {_names(waiting)}.' if waiting else ''
    head = ['method', 'name', 'parameters', 'seeds', *SUITE.tasks.values()]
    head += [*(f'*{group.name}*' for group in SUITE.groups), '*average*', 'SD']
    scores = [
        [
            *(row.score(task) for task in SUITE.tasks),
            *(row.group(group) for group in SUITE.groups),
            row.average(SUITE),
        ]
        for row in rows
    ]
    texts = [[number(score and score.mean) for score in line] for line in scores]
    for column in range(len(scores[0])):
        values = [line[column].mean for line in scores if line[column]]
        for line, text in zip(scores, texts, strict=True):
            if line[column] and len(values) > 1 and line[column].mean == max(values):
                text[column] = f'**{text[column]}**'
    body = [
        [
            markdown(claims.label(row.method)),
            markdown_code(row.method),
            count(row.parameters),
            _seeds(row),
            *text,
            number(line[-1] and line[-1].deviation, '.2f'),
        ]
        for row, line, text in zip(rows, scores, texts, strict=True)
    ]
    return pipes(head, body, left=('method', 'name')) + below


def _seeds(row: Row) -> str:
    """How many seeds the tasks have: ``3``, ``2-3`` or, where one has none, ``0-1``."""
    numbers = [score.seeds if (score := row.score(task)) else 0 for task in SUITE.tasks]
    return '-'.join(map(str, sorted({min(numbers), max(numbers)})))


def at_chance(trainings: Iterable[Record], guesses: Mapping[str, Guess] = _GUESSES) -> str:
    """A table of the final trainings that are no better than guessing; empty without any.

    Args:
        trainings: The record.
        guesses: Dataset -> what guessing does on it; trainings on others are left out.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in trainings:
        guess = guesses.get(row.dataset)
        if row.phase == FINAL and row.accuracy is not None and guess is not None:
            error = math.sqrt(guess.chance * (1 - guess.chance) / guess.images)
            if row.accuracy <= 100 * (guess.chance + 3 * error):
                cell = f'{guess.label}, seed {row.seed} ({row.accuracy:.1f})'
                found.setdefault((row.study, row.method), []).append(cell)
    if not found:
        return ''
    body = [
        [markdown_code(study), markdown_code(method), '; '.join(cells)]
        for (study, method), cells in sorted(found.items())
    ]
    head = ('study', 'name', 'tasks')
    return pipes(head, body, left=head)


def measured(trainings: Sequence[Record]) -> list[charts.Point]:
    """The methods that have all tasks, as figures of accuracy against parameters draw them.

    Args:
        trainings: The record.
    """
    return [
        charts.Point(row.method, row.parameters, score.mean, score.deviation)
        for row in _compared(trainings)
        if (score := row.average(SUITE)) and row.parameters is not None
    ]


def _left_out(points: Iterable[charts.Point], rows: Iterable[Row]) -> str:
    drawn = {point.method for point in points}
    missing = [row.method for row in rows if row.complete and row.method not in drawn]
    return f'\n\nNot drawn, since tasks are missing: {_names(missing)}.' if missing else ''


def _picture(name: str, text: str) -> str:
    return f'[![{text}]({name}.png)]({name}.svg)'


def _rates(trainings: Iterable[Record], used: Mapping[str, float]) -> str:
    """Mean accuracy on val200 of each method at each rate.

    Args:
        trainings: The record.
        used: Method -> the rate of its final trainings.
    """
    rows = [row for row in trainings if row.study in claims.CHOOSING and row.phase == SELECT]
    if not rows:
        return f'Nothing is recorded of {_names(claims.CHOOSING)} yet.'
    by_method: dict[str, dict[float, list[float | None]]] = {}
    for row in rows:
        points = by_method.setdefault(row.method, {})
        points.setdefault(records.rate_of(row), []).append(row.accuracy)
    rates = sorted({rate for points in by_method.values() for rate in points})
    body = []
    for method, points in sorted(by_method.items()):
        chosen, taken = chosen_rate(points), used.get(method)
        cells = [
            _mean(points.get(rate), rate == chosen, rate in (min(points), max(points)))
            for rate in rates
        ]
        other = None not in (chosen, taken) and chosen != taken
        cells.append(number(taken, 'g') + (' ‡' if other else ''))
        body.append([markdown(claims.label(method)), markdown_code(method), *cells])
    datasets = {row.dataset for row in rows}
    tasks = ', '.join(label for dataset, label in SUITE.tasks.items() if dataset in datasets)
    seeds = ', '.join(map(str, sorted({row.seed for row in rows})))
    text = f'Mean accuracy in % on val200 of {tasks}, after training on train800 with seed {seeds}.'
    head = ['method', 'name', *(f'{rate:g}' for rate in rates), 'used']
    parts = [f'{text}\n{_RATES}', pipes(head, body, left=('method', 'name'))]
    if others := [
        f'{markdown_code(name)} {rate:g}' for name, rate in used.items() if name not in by_method
    ]:
        parts.append(f'Rates of the other final trainings: {", ".join(others)}.')
    return '\n\n'.join(parts)


def _mean(values: Sequence[float | None] | None, chosen: bool, edge: bool) -> str:
    if values is None:
        return ''
    done = [value for value in values if value is not None]
    text = f'{statistics.fmean(done):.2f}' if done else MISSING
    if len(done) < len(values):
        text += f' ({len(done)} of {len(values)})'
    return f'**{text}**{" †" if edge else ""}' if chosen else text


def chosen_rate(points: Mapping[float, Sequence[float | None]]) -> float | None:
    """The rate with the highest mean, of equal ones the lowest; None before all are complete.

    Args:
        points: Rate -> accuracies on the tasks.
    """
    if any(value is None for values in points.values() for value in values):
        return None
    return max(sorted(points), key=lambda rate: statistics.fmean(points[rate]))


def _names(methods: Iterable[str]) -> str:
    return ', '.join(map(markdown_code, methods))
