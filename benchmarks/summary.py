"""The page of the paper's claims and README's figure, from the records of the two benchmarks."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import charts
import claims
import paired
import per_task
import records
import results
import tuned
import verdicts
from matplotlib.figure import Figure

from gleam_mm.fileio import write_bytes
from gleam_mm.output import figures
from gleam_mm.output.tables import MISSING, pipes
from gleam_mm.report import paper

HERE = Path(__file__).resolve().parent
PAGE, FIGURE = 'CLAIMS.md', 'front'

HEAD = """\
# The paper's claims, and what was measured

*Made by `python benchmarks/collect_claims.py` from the records of [MiniVTAB](minivtab/RESULTS.md)
and the [real backbone](real/RESULTS.md); do not edit it by hand.*

In points of accuracy, the first minus the second, with the verdict of that benchmark's own rule
([the same for both](minivtab/RESULTS.md#how-claims-are-tested)). The paper's column quotes it:
VTAB-1K on ViT-B/16. Tasks and backbones differ, so that a number compares with its own column only.
MiniVTAB's first edition is of GLEAM's presets before their wiring was chosen; its rows have two of
four experts an image, and no clipping. [The second](minivtab/TUNED.md) has the presets of today,
clipping, and learning rates chosen for each task.

![Accuracy against parameters, as measured on MiniVTAB and on the real backbone](front.svg)

MiniVTAB's panel has the second edition. Whiskers are standard deviations over seeds. Opened by
itself, [the figure](front.svg) tells every point's name and numbers under the pointer.

"""


@dataclass(frozen=True)
class Line:
    """A claim, and the comparisons that put it to the test.

    Attributes:
        says: The claim.
        paper: What the paper prints.
        mini: First and second method on MiniVTAB; None where there is no such comparison.
        real: First and second method on the real backbone, and in MiniVTAB's second edition, which
            has the same names.
    """

    says: str
    paper: str
    mini: tuple[str, str] | None = None
    real: tuple[str, str] | None = None


Said = dict[tuple[str, str], tuple[paired.Paired | None, str]]
"""First and second method -> their numbers, and the verdict."""


NAMED = (
    'gleam-b',
    'gleam-l-uniform',
    'gleam-t-uniform',
    'adaptformer',
    'linear',
    'full',
    'full-slow',
    *dict.fromkeys(name for one in results.ASKED.comparisons for name in (one.first, one.second)),
)
"""Whose names the figure writes: methods of the claims, and what bounds the rest."""


def _averages(first: str, second: str) -> str:
    """The paper's two averages over VTAB-1K."""
    of = paper.rows(paper.VTAB, 'vit-b')
    return f'{of[first].average} against {of[second].average}'


LINES = (
    Line(
        'One LoRA shared by the whole network loses accuracy (LoRA > SLoRA)',
        '0.7 on CIFAR-100, on proj alone',
        ('lora-all', 'slora'),
        ('lora-all', 'slora'),
    ),
    Line(
        'Local transforms win a part of it back (FacT > SLoRA)',
        '0.4 of the 0.7',
        ('fact', 'slora'),
        ('fact', 'slora'),
    ),
    Line(
        'The mixture of experts wins more (GLEAM-L > FacT, the same rung without it)',
        '1.2 on five tasks (Table 2)',
        ('gleam-l', 'fact'),
        ('gleam-l', 'fact'),
    ),
    Line(
        'GLEAM-T, 3 % of its parameters, is level with LoRA of rank 8 on qkv',
        _averages('gleam-t', 'lora'),
        ('gleam-t', 'lora'),
        ('gleam-t', 'lora'),
    ),
    Line('The same, trained twice as long (orientation)', MISSING, None, ('gleam-t-6', 'lora-6')),
    Line(
        "GLEAM-L > LoRA on qkv, of rank 8 (10 in MiniVTAB's first edition, for its size)",
        _averages('gleam-l', 'lora'),
        ('gleam-l', 'lora-r10'),
        ('gleam-l', 'lora'),
    ),
    Line(
        "GLEAM-L > RepAdapter (of rank 12 in MiniVTAB's first edition, for its size)",
        _averages('gleam-l', 'repadapter'),
        ('gleam-l', 'repadapter-r12'),
        ('gleam-l', 'repadapter'),
    ),
    Line('GLEAM-L > SSF', _averages('gleam-l', 'ssf'), ('gleam-l', 'ssf'), ('gleam-l', 'ssf')),
    Line('GLEAM-L > Convpass', 'not compared', ('gleam-l', 'convpass'), ('gleam-l', 'convpass')),
    Line('GLEAM-B > SSF', _averages('gleam-b', 'ssf'), ('gleam-b', 'ssf'), ('gleam-b', 'ssf')),
    Line(
        'One expert an image is better than two (in most cases)',
        'Table 2',
        ('gleam-l-k1', 'gleam-l'),
    ),
    Line(
        'Every Linear is better than attention alone',
        '0.8, 0.4 and 1.3 on the three groups',
        ('gleam-l', 'gleam-l-attention'),
    ),
)


def mini() -> Said:
    """What MiniVTAB says of its claims, and, without a verdict, of any other two methods."""
    trainings = [r for r in records.read(records.FOLDER / records.CSV) if r.study in claims.STUDIES]
    scores = records.scores(trainings)
    compared = records.parameters(r for r in trainings if r.study in claims.METHODS)
    front, _ = claims.fronts(compared)
    found = {
        pair: (paired.compare(*(scores.get(name, {}) for name in pair)), 'not among its claims')
        for pair in (line.mini for line in LINES)
        if pair
    }
    for claim in (claims.LADDER, front, claims.ABLATION):
        found.update(_said(verdicts.judge(claim, scores)))
    return found


def second() -> Said:
    """What MiniVTAB's second edition says."""
    trainings = [r for r in records.read(records.FOLDER / records.CSV) if r.study in claims.TUNED]
    return _said(verdicts.judge(tuned.ASKED, records.scores(trainings)))


def real() -> Said:
    """What the real backbone says."""
    scores = records.scores(records.read(HERE / 'real' / records.CSV))
    return _said(verdicts.judge(results.ASKED, scores))


def _said(judged: Iterable[verdicts.Judged]) -> Said:
    return {(j.comparison.first, j.comparison.second): (j.paired, j.verdict) for j in judged}


def build(lines: Iterable[Line], on_mini: Said, on_tuned: Said, on_real: Said) -> str:
    """The page.

    Args:
        lines: Its rows.
        on_mini: What MiniVTAB's first edition says.
        on_tuned: What its second one says.
        on_real: What the real backbone says.
    """
    rows = [
        [
            line.says,
            line.paper,
            _cell(on_mini, line.mini),
            _cell(on_tuned, line.real if line.real in on_tuned else None),
            _cell(on_real, line.real),
        ]
        for line in lines
    ]
    head = [
        'claim',
        'the paper',
        'MiniVTAB',
        'MiniVTAB, options chosen for each task',
        'real backbone',
    ]
    return HEAD + pipes(head, rows, left=head) + '\n'


def _cell(said: Said, pair: tuple[str, str] | None) -> str:
    numbers, verdict = said.get(pair, (None, paired.NO_DATA)) if pair else (None, MISSING)
    if numbers is None:
        return verdict
    return f'{numbers.mean:+.1f} (pairs: {numbers.pairs}, tasks: {len(numbers.tasks)}): {verdict}'


def front() -> Figure:
    """README's figure: accuracy against parameters on MiniVTAB, and on the real backbone.

    Of MiniVTAB the second edition, where options are chosen for each task as on the other.
    """
    trainings = records.read(records.FOLDER / records.CSV)
    of_mini = per_task.points([r for r in trainings if r.study in claims.TUNED], tuned.TASKS)
    tasks, of_real = results.measured(records.read(HERE / 'real' / records.CSV))
    of_tasks = f'mean of {len(tasks)} tasks (%)'
    if len(tasks) < 4:
        of_tasks = f'mean of {" and ".join(tasks)} (%)'
    panels = [
        charts.Panel(f'MiniVTAB: {claims.BACKBONE}', 'mean of nine tasks (%)', of_mini),
        charts.Panel("Real backbone: DINOv2's ViT-S/14", of_tasks, of_real),
    ]
    return charts.one_above_the_other(panels, NAMED)


def write() -> list[Path]:
    """Writes the page and the figure beside this file."""
    page = HERE / PAGE
    write_bytes(page, build(LINES, mini(), second(), real()).encode())
    return [page, *figures.save(front(), HERE / FIGURE, 'svg', 'dark.svg')]
