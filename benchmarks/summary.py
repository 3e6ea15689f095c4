"""The page of the paper's claims and README's figure, from the records of the two benchmarks."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import charts
import claims
import inside
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
HOMOGENEITY = (HERE / 'minivtab', HERE / 'real')  # where its record lies

HEAD = """\
# The paper's claims, and what was measured

*Made by `python benchmarks/collect_claims.py` from the records of [MiniVTAB](minivtab/RESULTS.md)
and the [real backbone](real/RESULTS.md); do not edit it by hand.*

In points of accuracy, the first minus the second, with the verdict of that benchmark's own rule
([the same for both](minivtab/RESULTS.md#how-claims-are-tested)); *not among its claims* is what its
page does not ask, so that no p is corrected for it and there is no verdict. The paper's column
quotes it: VTAB-1K on ViT-B/16, averages, or over the five tasks of its Table 2, where one expert
serves an image but where their number is varied. The public codes behind most such rows test after
every epoch or every tenth and print the best on test ([methods](../docs/methods.md)); here each
test split is opened once, at the last epoch. Tasks and backbones differ, so that a number compares
with its own column only.
MiniVTAB's first edition is of GLEAM's presets before their wiring was chosen; its rows have two of
four experts an image, and no clipping. [The second](minivtab/TUNED.md) has the presets of today,
clipping, and learning rates chosen for each task.

![Accuracy against parameters, as measured on MiniVTAB and on the real backbone](front.svg)

MiniVTAB's panel has the second edition. Whiskers are standard deviations over seeds. Opened by
itself, [the figure](front.svg) tells every point's name and numbers under the pointer.

"""

BELOW = """
Experts, alpha and Linears are varied and tested in MiniVTAB's first edition alone; on the real
backbone alpha was varied on val200 of two tasks ([why](real/README.md#why)), and val200 chose that
four experts serve in the presets ([GLEAM](../docs/gleam.md#how-the-presets-wiring-is-chosen)).
Nothing was trained here for what the paper says of NOAH, GLoRA (Table 3) and Swin-B (Table 4).

## Are updates alike across layers?

The paper's Figures 2 and 3. In the cells, for each kind of Linear, the mean difference between
cosine similarities of adjacent blocks, the first's updates minus the second's, and in how many
trained models it is above 0. No rule was written for a verdict. Accuracies and the images that were
seen: [MiniVTAB](minivtab/RESULTS.md#claim-4-are-updates-alike-across-layers), its first edition;
[real backbone](real/RESULTS.md#are-updates-alike-across-layers).

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


@dataclass(frozen=True)
class Alike:
    """A claim on how alike updates are across layers, and what is compared for it.

    Attributes:
        says: The claim.
        paper: What the paper prints.
        mini: First and second method on MiniVTAB; without a second one the first method's frozen
            outputs.
        real: The same on the real backbone.
    """

    says: str
    paper: str
    mini: tuple[str, str | None]
    real: tuple[str, str | None]


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


def _over(first: str, second: str, says: str = '', **others: tuple[str, str]) -> Line:
    """The claim that one method of the paper's table is better than another.

    Args:
        first: The one that is said to be better.
        second: The other one, as benchmarks call it.
        says: The claim, where names alone do not say enough.
        **others: Who is compared in its stead, on ``mini`` or ``real``.
    """
    known = {'fact': 'fact-tk', 'full-slow': 'full'}
    return Line(
        says or f'{claims.label(first)} > {claims.label(second)}',
        _averages(first, known.get(second, second)),
        others.get('mini', (first, second)),
        others.get('real', (first, second)),
    )


def _experts(number: int, average: str) -> Line:
    """The claim that four experts are better than so many, whose average Table 2 has."""
    of = {0: 'no mixture', 2: 'two', 3: 'three', 5: 'five'}[number]
    return Line(
        f'Four experts are better than {of}, GLEAM-L',
        f'85.7 against {average} (Table 2)',
        ('gleam-l', f'gleam-l-n{number}'),
    )


def _scale(alpha: str, average: str) -> Line:
    """The claim that alpha = 1 is better than another, whose average Table 2 has."""
    return Line(
        f'alpha = 1 is better than {alpha}, GLEAM-L',
        f'85.7 against {average} (Table 2)',
        ('gleam-l', f'gleam-l-alpha{alpha}'),
    )


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
    _over(
        'gleam-l',
        'lora',
        "GLEAM-L > LoRA on qkv, of rank 8 (10 in MiniVTAB's first edition, for its size)",
        mini=('gleam-l', 'lora-r10'),
    ),
    _over(
        'gleam-l',
        'fact',
        "GLEAM-L > FacT (TT; TK in the paper, rank 19 in MiniVTAB's first edition, for its size)",
        mini=('gleam-l', 'fact-r19'),
    ),
    _over(
        'gleam-l',
        'repadapter',
        "GLEAM-L > RepAdapter (of rank 12 in MiniVTAB's first edition, for its size)",
        mini=('gleam-l', 'repadapter-r12'),
    ),
    _over('gleam-l', 'ssf'),
    Line('GLEAM-L > Convpass', 'not compared', ('gleam-l', 'convpass'), ('gleam-l', 'convpass')),
    _over('gleam-l', 'adaptformer'),
    _over('gleam-l', 'adapter'),
    _over('gleam-l', 'vpt-deep'),
    _over('gleam-l', 'vpt-shallow'),
    _over('gleam-l', 'bitfit'),
    _over(
        'gleam-l',
        'full-slow',
        'GLEAM-L > full tuning (at rates of its own)',
        mini=('gleam-l', 'full'),
    ),
    _over('gleam-b', 'ssf'),
    _over('gleam-b', 'lora'),
    _over('gleam-b', 'fact', 'GLEAM-B > FacT (TT; TK in the paper)'),
    _over('gleam-b', 'repadapter', 'GLEAM-B is nearly level with RepAdapter'),
    _over('gleam-b', 'adaptformer'),
    _over('gleam-b', 'adapter'),
    _over('gleam-b', 'vpt-deep'),
    _over('gleam-b', 'vpt-shallow'),
    _over('gleam-b', 'bitfit'),
    _experts(0, '84.5'),
    _experts(2, '85.0'),
    _experts(3, '84.7'),
    _experts(5, '84.4'),
    Line(
        'One expert an image is better than two (in most cases)',
        '85.7 against 85.1 (Table 2)',
        ('gleam-l-k1', 'gleam-l'),
    ),
    _scale('0.01', '84.4'),
    _scale('0.1', '84.8'),
    _scale('10', '84.3'),
    _scale('100', '84.1'),
    Line(
        'Every Linear is better than attention alone',
        '0.8, 0.4 and 1.3 on the three groups',
        ('gleam-l', 'gleam-l-attention'),
    ),
)
ALIKE = (
    Alike(
        "LoRA's updates are more alike than the outputs of the frozen layers",
        '+0.14 on proj, CIFAR-100',
        ('lora-all', None),
        ('lora', None),
    ),
    Alike(
        "Sharing makes it worse: SLoRA's are more alike than LoRA's",
        'Figure 3, no number',
        ('slora', 'lora-all'),
        ('slora', 'lora'),
    ),
    Alike(
        "The mixture makes it better: GLEAM-L's are less alike than SLoRA's",
        'Figure 3, no number',
        ('gleam-l', 'slora'),
        ('gleam-l', 'slora'),
    ),
    Alike("GLEAM-L's against LoRA's", MISSING, ('gleam-l', 'lora-all'), ('gleam-l', 'lora')),
    Alike(
        "The same with a random start, against LoRA's",
        MISSING,
        ('gleam-l-uniform', 'lora-all'),
        ('gleam-l-uniform', 'lora'),
    ),
)


NOT_ASKED = 'not among its claims'


def mini() -> Said:
    """What MiniVTAB says of its claims, and, without a verdict, of any other two methods."""
    trainings = [r for r in records.read(records.FOLDER / records.CSV) if r.study in claims.STUDIES]
    compared = records.parameters(r for r in trainings if r.study in claims.METHODS)
    front, _ = claims.fronts(compared)
    asked = (claims.LADDER, front, claims.ABLATION)
    return _says(records.scores(trainings), asked, (line.mini for line in LINES))


def second() -> Said:
    """What MiniVTAB's second edition says."""
    trainings = [r for r in records.read(records.FOLDER / records.CSV) if r.study in claims.TUNED]
    return _says(records.scores(trainings), (tuned.ASKED,), (line.real for line in LINES))


def real() -> Said:
    """What the real backbone says."""
    scores = records.scores(records.read(HERE / 'real' / records.CSV))
    return _says(scores, (results.ASKED,), (line.real for line in LINES))


def _says(
    scores: Mapping[str, paired.Scores],
    asked: Iterable[claims.Claim],
    pairs: Iterable[tuple[str, str] | None],
) -> Said:
    """Verdicts on what is asked; of other pairs of methods the numbers, where there are any."""
    found: Said = {}
    for pair in filter(None, pairs):
        if numbers := paired.compare(*(scores.get(name, {}) for name in pair)):
            found[pair] = numbers, NOT_ASKED
    for claim in asked:
        found.update(_said(verdicts.judge(claim, scores)))
    return found


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


def alike(lines: Iterable[Alike], on_mini: Any, on_real: Any) -> str:
    """The table of how alike updates are.

    Args:
        lines: Its rows.
        on_mini: What ``tools/analyze.py homogeneity`` wrote for MiniVTAB.
        on_real: The same for the real backbone.
    """
    rows = [
        [
            line.says,
            line.paper,
            _difference(on_mini, *line.mini),
            _difference(on_real, *line.real),
        ]
        for line in lines
    ]
    head = ['claim', 'the paper', 'MiniVTAB', 'real backbone']
    return pipes(head, rows, left=head) + '\n'


def _difference(content: Any, first: str, second: str | None) -> str:
    found = [
        f'{role} {statistics.fmean(values):+.2f} ({sum(v > 0 for v in values)} of {len(values)})'
        for role, values in inside.differences(content, first, second).items()
    ]
    return ', '.join(found) or paired.NO_DATA


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


def whole() -> str:
    """The page, as the records have it."""
    seen = (records.read_json(folder / inside.HOMOGENEITY) for folder in HOMOGENEITY)
    return build(LINES, mini(), second(), real()) + BELOW + alike(ALIKE, *seen)


def write() -> list[Path]:
    """Writes the page and the figure beside this file."""
    page = HERE / PAGE
    write_bytes(page, whole().encode())
    return [page, *figures.save(front(), HERE / FIGURE, 'svg', 'dark.svg')]
