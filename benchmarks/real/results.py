"""The page of results on the real backbone, from its record alone."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import charts
import inside
import per_task
import records
import writeup
from records import Record

from gleam_mm.fileio import write_bytes
from gleam_mm.minivtab import MINI_TASKS

HERE = Path(__file__).resolve().parent
PAGE = 'RESULTS.md'
TASKS = ('cifar10', 'signs', 'solar', 'land', 'letters', 'count', 'distance', 'orientation')
PHOTOGRAPHS = 3  # of them, the first ones
HEADLINE = ('gleam-t', 'gleam-l', 'lora')  # whose tasks a figure's means are over
_PLAIN = {f'real-{task}': task for task in TASKS}
GROUPS = {
    'natural': ('cifar10', 'signs', 'letters'),
    'specialized': ('solar', 'land'),
    'structured': ('count', 'distance', 'orientation'),
    'photographs': TASKS[:PHOTOGRAPHS],
    'drawn': TASKS[PHOTOGRAPHS:],
}
_VTAB = 3  # of them, the first ones
_GROUPED = {name: [f'real-{task}' for task in tasks] for name, tasks in GROUPS.items()}
_LABELS = {f'real-{task}': f'*{task}*' if task in TASKS[:PHOTOGRAPHS] else task for task in TASKS}
_GUESSES = {  # of solar cells: naming its largest class always
    'real-cifar10': writeup.Guess('cifar10', 1 / 10, 2000),
    'real-signs': writeup.Guess('signs', 1 / 10, 1062),
    'real-solar': writeup.Guess('solar', 933 / 1624, 1624),
    **{
        f'real-{task}': writeup.Guess(task, 1 / MINI_TASKS[task].num_classes, 2000)
        for task in TASKS[PHOTOGRAPHS:]
    },
}

ASKED = per_task.ask(
    [
        ('gleam-t', 'lora'),
        ('gleam-t', 'lora-all'),
        ('gleam-l', 'lora'),
        ('gleam-l', 'fact'),
        ('gleam-l', 'ssf'),
        ('gleam-l', 'repadapter'),
        ('gleam-l', 'convpass'),
        ('gleam-l', 'slora'),
        ('lora-all', 'slora'),
        ('fact', 'slora'),
        ('gleam-t-6', 'lora-6'),
    ],
    '[MiniVTAB](../minivtab/RESULTS.md#how-claims-are-tested)',
    {
        'lora-all': 'LoRA of rank 8 on every Linear',
        'gleam-t-6': 'Six epochs: GLEAM-T',
        'lora-6': 'LoRA of rank 8 on qkv',
    },
)

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
```

Workers are those that trained. What each study ran on, at which commit and for how long:
"""

_TABLE = """\
## Accuracy

By the mean over the tasks ({tasks}); parameters without the head. *seeds*: the fewest and the
most that a task has; *SD*: of the mean, over the seeds that all tasks have. A method that lacks one
of the tasks comes last, without a mean. `-6`: six epochs instead of three; `-uniform`: GLEAM whose
local transforms start at random; `-slow`: at smaller rates
([rules 6 to 8](README.md#rules-written-before-the-runs)).
"""

_GROUPS = """\
## Groups

Means over the tasks of a group as in VTAB: natural ({natural}), specialized ({specialized}) and
structured ({structured}), and the mean of these three; beside it photographs and drawn tasks, each
by themselves. The grouping came after the numbers, and no claim hangs on it.
"""

_AT_CHANCE = """\
## Trainings that ended at chance

Their accuracy on test is at most three standard errors above that of guessing, on solar cells of
naming always the largest class. They count in all means.
"""

_RATES = """\
## Learning rates

Of 1e-3, 3e-3 and 1e-2, for `full-slow` of 1e-5, 3e-5 and 1e-4, the best on val200, for each task
by itself; in brackets its accuracy there.
"""

_ALIKE = '## Are updates alike across layers?'
_EXPERTS = '## Which experts serve'
_ANALYZE = """\
cd benchmarks/real
export PYTHONPATH=$PWD
python ../../tools/analyze.py"""


def write(folder: Path) -> Path:
    """Writes the page of a folder that has a record.

    Args:
        folder: Where ``results.csv`` and ``studies.json`` are.
    """
    trainings = records.read(folder / records.CSV)
    page = folder / PAGE
    text = build(trainings, records.read_json(folder / records.STUDIES) or {})
    if homogeneity := records.read_json(folder / inside.HOMOGENEITY):
        text += f'\n{_ALIKE}\n\n{inside.updates(homogeneity)}\n'
        text += f'\n{inside.command(homogeneity, _ANALYZE)}\n'
    if routing := records.read_json(folder / inside.ROUTING):
        text += f'\n{_EXPERTS}\n\n{inside.gates(routing)}\n'
        text += f'\n{inside.command(routing, _ANALYZE)}\n'
    write_bytes(page, text.encode())
    return page


def build(trainings: Sequence[Record], notes: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of the page.

    Args:
        trainings: The record.
        notes: Study -> what ``studies.json`` says of it.
    """
    scores = records.scores(trainings)
    parts = [_TOP.format(runs=_runs(notes)), writeup.state(trainings, notes, sorted(notes)), '']
    if scores:
        parameters = records.parameters(trainings)
        there = [task for task in TASKS if f'real-{task}' in per_task.present(scores, _LABELS)]
        parts += [
            _TABLE.format(tasks=', '.join(there)),
            per_task.accuracies(scores, parameters, _LABELS),
            '\n*In italics: photographs.*\n',
        ]
        if grouped := per_task.groups(scores, parameters, _GROUPED, _VTAB):
            told = {name: ', '.join(tasks) for name, tasks in GROUPS.items()}
            parts += [_GROUPS.format(**told), grouped + '\n']
        if guessing := writeup.at_chance(trainings, _GUESSES):
            parts += [_AT_CHANCE, guessing + '\n']
        parts.append(per_task.answers(ASKED, scores) + '\n')
    parts += [_RATES, per_task.rates(trainings, _PLAIN), '']
    return '\n'.join(parts)


def _runs(notes: Mapping[str, Mapping[str, Any]]) -> str:
    """The commands that made the record, each with the number of workers that is noted."""
    workers = {study: note['workers'] for study, note in sorted(notes.items())}
    lines = [
        f'python ../../tools/sweep.py run configs/sweeps/{study}.py --workers {at_once}'
        for study, at_once in workers.items()
    ]
    for at_once, studies in itertools.groupby(sorted(workers, key=workers.get), workers.get):
        lines.append(f'python collect.py --workers {at_once} {" ".join(studies)}')
    return '\n'.join(lines)


def measured(trainings: Sequence[Record]) -> tuple[list[str], list[charts.Point]]:
    """What figures of accuracy against parameters draw.

    Args:
        trainings: The record.

    Returns:
        The tasks that the methods of the headline all have, and the methods that have these; their
        accuracies are means over the tasks, and deviations are over seeds that all tasks have.
    """
    of = {method: {task for task, _ in own} for method, own in records.scores(trainings).items()}
    tasks = [task for task in TASKS if all(f'real-{task}' in of.get(m, ()) for m in HEADLINE)]
    return tasks, per_task.points(trainings, [f'real-{task}' for task in tasks])
