"""The page of results on the real backbone, from its record alone."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import charts
import inside
import paired
import records
from records import Record

from gleam_mm.fileio import write_bytes
from gleam_mm.output.tables import MISSING, count, number, pipes
from gleam_mm.sweep.groups import over_seeds
from gleam_mm.sweep.plan import FINAL, SELECT

PAGE = 'RESULTS.md'
TASKS = ('cifar10', 'signs', 'solar', 'land', 'letters', 'count', 'distance', 'orientation')
PHOTOGRAPHS = 3  # of them, the first ones
HEADLINE = ('gleam-t', 'gleam-l', 'lora')  # whose tasks a figure's means are over

CLAIMS = (
    ('GLEAM-T is better than LoRA of rank 8 on qkv', 'gleam-t', 'lora'),
    ('GLEAM-T is better than LoRA of rank 8 on every Linear', 'gleam-t', 'lora-all'),
    *(
        (f'GLEAM-L is better than {label}', 'gleam-l', method)
        for label, method in [
            ('LoRA of rank 8 on qkv', 'lora'),
            ('FacT', 'fact'),
            ('SSF', 'ssf'),
            ('RepAdapter', 'repadapter'),
            ('Convpass', 'convpass'),
        ]
    ),
    ('GLEAM-L is better than SLoRA', 'gleam-l', 'slora'),
    ('LoRA of rank 8 on every Linear is better than SLoRA', 'lora-all', 'slora'),
    ('FacT is better than SLoRA', 'fact', 'slora'),
    ('Six epochs: GLEAM-T is better than LoRA of rank 8 on qkv', 'gleam-t-6', 'lora-6'),
)
"""What is compared: a sentence, the method that it is about, and the other one."""


@dataclass(frozen=True)
class Judged:
    """What came of a comparison.

    Attributes:
        says: The sentence that is judged.
        first: The method that it is about.
        second: The other one.
        compared: Their numbers; None without data.
        p: Over tasks, corrected for all of them.
        verdict: The verdict.
    """

    says: str
    first: str
    second: str
    compared: paired.Paired | None
    p: float | None
    verdict: str


_TOP = """\
# A real backbone: results

*Made by `benchmarks/real/collect.py` from [results.csv](results.csv) and
[studies.json](studies.json); do not edit it by hand.*

DINOv2's ViT-S/14, its first ten blocks, at 98 x 98 pixels; [README.md](README.md) says where
weights and photographs come from, and the rules. Accuracy is top-1 in % on the test split, which a
final training opens once, at its last epoch. Nothing here compares with a published number.

<!-- not run: it needs weights and photographs that are no part of the project -->
```bash
cd benchmarks/real
export PYTHONPATH=$PWD
{runs}
python collect.py {studies}
```
"""

_TABLE = """\
## Accuracy

By the mean over the tasks ({tasks}); parameters without the head. *seeds*: the fewest and the
most that a task has. A method that lacks one of the tasks comes last, without a mean. `-6`: six
epochs instead of three.
"""

_CLAIMS = """\
## What was asked

By the rule of [MiniVTAB](../minivtab/RESULTS.md#how-claims-are-tested): a claim holds where the
mean difference over tasks is above zero and the p of its t test over tasks, with Holm's correction
for all lines of this table, is below 0.05.
"""

_RATES = """\
## Learning rates

Of 1e-3, 3e-3 and 1e-2 the best on val200, for each task by itself; in brackets its accuracy there.
"""

_ALIKE = '## Are updates alike across layers?'
_EXPERTS = '## Which experts serve'


def write(folder: Path) -> Path:
    """Writes the page of a folder that has a record.

    Args:
        folder: Where ``results.csv`` and ``studies.json`` are.
    """
    trainings = records.read(folder / records.CSV)
    notes = records.read_json(folder / records.STUDIES) or {}
    page = folder / PAGE
    text = build(trainings, sorted(notes))
    if homogeneity := records.read_json(folder / inside.HOMOGENEITY):
        text += f'\n{_ALIKE}\n\n{inside.updates(homogeneity)}\n'
    if routing := records.read_json(folder / inside.ROUTING):
        text += f'\n{_EXPERTS}\n\n{inside.gates(routing)}\n'
    write_bytes(page, text.encode())
    return page


def build(trainings: Sequence[Record], studies: Sequence[str]) -> str:
    """The text of the page.

    Args:
        trainings: The record.
        studies: Names of the sweeps that it is of.
    """
    scores = records.scores(trainings)
    runs = [f'python ../../tools/sweep.py run configs/sweeps/{s}.py --workers 2' for s in studies]
    parts = [_TOP.format(runs='\n'.join(runs), studies=' '.join(studies))]
    if scores:
        parts += [_accuracies(scores, records.parameters(trainings)), _claims(scores)]
    parts.append(_RATES + '\n' + _rates(trainings))
    return '\n'.join(parts)


def _accuracies(scores: Mapping[str, paired.Scores], parameters: Mapping[str, int]) -> str:
    """The table of accuracies, the best method first."""
    means = {method: paired.task_means(own) for method, own in scores.items()}
    tasks = [task for task in TASKS if any(f'real-{task}' in own for own in means.values())]
    whole = {m: own for m, own in means.items() if all(f'real-{task}' in own for task in tasks)}
    overall = {method: statistics.fmean(own.values()) for method, own in whole.items()}
    rows = [
        [
            method,
            count(parameters[method]),
            _seeds(scores[method]),
            *(number(means[method].get(f'real-{task}')) for task in tasks),
            number(overall.get(method)),
        ]
        for method in sorted(means, key=lambda m: (m not in overall, -overall.get(m, 0.0), m))
    ]
    names = [f'*{task}*' if task in TASKS[:PHOTOGRAPHS] else task for task in tasks]
    table = pipes(['method', 'parameters', 'seeds', *names, 'mean'], rows, left=['method'])
    text = _TABLE.format(tasks=', '.join(tasks))
    return f'{text}\n{table}\n\n*In italics: photographs.*\n'


def _seeds(own: paired.Scores) -> str:
    """How many seeds the tasks of a method have: a number, or the fewest and the most."""
    numbers = Counter(task for task, _ in own).values()
    fewest, most = min(numbers), max(numbers)
    return str(most) if fewest == most else f'{fewest} to {most}'


def judge(scores: Mapping[str, paired.Scores]) -> list[Judged]:
    """Puts all claims to the test.

    Args:
        scores: Method -> task and seed -> accuracy.
    """
    compared = [
        paired.compare(scores.get(first, {}), scores.get(second, {})) for _, first, second in CLAIMS
    ]
    corrected = paired.holm([one.p_tasks if one else None for one in compared])
    return [
        Judged(*claim, one, p, paired.verdict(one, p))
        for claim, one, p in zip(CLAIMS, compared, corrected, strict=True)
    ]


def measured(trainings: Sequence[Record]) -> tuple[list[str], list[charts.Point]]:
    """What figures of accuracy against parameters draw.

    Args:
        trainings: The record.

    Returns:
        The tasks that the methods of the headline all have, and the methods that have these; their
        accuracies are means over the tasks, and deviations are over seeds that all tasks have.
    """
    scores, parameters = records.scores(trainings), records.parameters(trainings)
    means = {method: paired.task_means(own) for method, own in scores.items()}
    tasks = [task for task in TASKS if all(f'real-{task}' in means.get(m, {}) for m in HEADLINE)]
    points = []
    for method, own in means.items():
        if tasks and all(f'real-{task}' in own for task in tasks):
            seeds = {seed for _, seed in scores[method]}
            by_seed = [[scores[method].get((f'real-{t}', s)) for t in tasks] for s in seeds]
            _, deviation = over_seeds([statistics.fmean(v) for v in by_seed if None not in v])
            mean = statistics.fmean(own[f'real-{task}'] for task in tasks)
            points.append(charts.Point(method, parameters[method], mean, deviation))
    return tasks, points


def _claims(scores: Mapping[str, paired.Scores]) -> str:
    """The table of claims, with what can be said of each."""
    rows = [
        [
            one.says,
            f'{one.compared.mean:+.1f}' if one.compared else MISSING,
            f'{one.compared.wins} of {one.compared.pairs}' if one.compared else MISSING,
            number(one.p, '.3f'),
            one.verdict,
        ]
        for one in judge(scores)
    ]
    head = ['claim', 'points', 'pairs won', 'p', 'verdict']
    table = pipes(head, rows, left=['claim'])
    return f'{_CLAIMS}\n{table}\n'


def _rates(trainings: Sequence[Record]) -> str:
    """The table of chosen rates: those that final trainings have."""
    validated = {
        (row.method, row.dataset, row.options): row.accuracy
        for row in trainings
        if row.phase == SELECT and row.accuracy is not None
    }
    chosen = {(r.method, r.dataset): r.options for r in trainings if r.phase == FINAL and r.options}
    tasks = [task for task in TASKS if any(dataset == f'real-{task}' for _, dataset in chosen)]
    rows = []
    for method in sorted({method for method, _ in chosen}):
        cells = []
        for task in tasks:
            options = chosen.get((method, f'real-{task}'))
            accuracy = validated.get((method, f'real-{task}', options or ''))
            cells.append(
                MISSING if accuracy is None else f'{float(_rate(options)):g} ({accuracy:.1f})'
            )
        rows.append([method, *cells])
    return pipes(['method', *tasks], rows, left=['method']) + '\n'


def _rate(options: str) -> str:
    """The learning rate among ``name=value,...``; the grid's comes last."""
    return options.rsplit('optim_wrapper.optimizer.lr=', 1)[1].split(',')[0]
