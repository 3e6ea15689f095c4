"""The page of results on the real backbone, from its record alone."""

from collections.abc import Sequence
from pathlib import Path

import charts
import inside
import per_task
import records
from records import Record

from gleam_mm.fileio import write_bytes

PAGE = 'RESULTS.md'
TASKS = ('cifar10', 'signs', 'solar', 'land', 'letters', 'count', 'distance', 'orientation')
PHOTOGRAPHS = 3  # of them, the first ones
HEADLINE = ('gleam-t', 'gleam-l', 'lora')  # whose tasks a figure's means are over
_PLAIN = {f'real-{task}': task for task in TASKS}
_LABELS = {f'real-{task}': f'*{task}*' if task in TASKS[:PHOTOGRAPHS] else task for task in TASKS}

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
python collect.py {studies}
```
"""

_TABLE = """\
## Accuracy

By the mean over the tasks ({tasks}); parameters without the head. *seeds*: the fewest and the
most that a task has; *SD*: of the mean, over the seeds that all tasks have. A method that lacks one
of the tasks comes last, without a mean. `-6`: six epochs instead of three; `-uniform`: GLEAM whose
local transforms start at random; `-slow`: at smaller rates
([rules 6 to 8](README.md#rules-written-before-the-runs)).
"""

_RATES = """\
## Learning rates

Of 1e-3, 3e-3 and 1e-2, for `full-slow` of 1e-5, 3e-5 and 1e-4, the best on val200, for each task
by itself; in brackets its accuracy there.
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
        there = [task for task in TASKS if f'real-{task}' in per_task.present(scores, _LABELS)]
        parts += [
            _TABLE.format(tasks=', '.join(there)),
            per_task.accuracies(scores, records.parameters(trainings), _LABELS),
            '\n*In italics: photographs.*\n',
            per_task.answers(ASKED, scores) + '\n',
        ]
    parts += [_RATES, per_task.rates(trainings, _PLAIN), '']
    return '\n'.join(parts)


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
