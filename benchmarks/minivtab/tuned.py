"""The page of the second edition, whose options are chosen for each task, from the record alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claims
import per_task
import records
import writeup
from records import Record

from gleam_mm.fileio import write_bytes

PAGE = 'TUNED.md'
TASKS = writeup.SUITE.tasks

ASKED = per_task.ask(
    [
        ('gleam-l', 'convpass'),
        ('gleam-l', 'fact'),
        ('gleam-l', 'lora'),
        ('gleam-l', 'repadapter'),
        ('gleam-l', 'ssf'),
        ('gleam-l', 'slora'),
        ('gleam-b', 'ssf'),
        ('gleam-t', 'lora'),
        ('lora-all', 'slora'),
        ('fact', 'slora'),
    ],
    '[the first edition](RESULTS.md#how-claims-are-tested)',
    {'lora-all': 'LoRA of rank 16 on every Linear'},
)
"""What is compared; written before any training was tested."""

_TOP = """\
# MiniVTAB, options chosen for each task: results

*Made by `benchmarks/minivtab/page.py` from [results.csv](results.csv) and
[studies.json](studies.json); do not edit it by hand.*

The second edition: three learning rates for every method and task, chosen on val200; gradients
clipped to a norm of 1 for all alike; GLEAM's presets of today.
[docs/minivtab.md](../../docs/minivtab.md#the-second-edition-options-chosen-for-each-task) has the
rules. Numbers compare with those of this page alone.

<!-- not run: it trains for hours -->
```bash
{runs}
python benchmarks/minivtab/collect.py   # studies -> results.csv, studies.json
python benchmarks/minivtab/page.py      # these two -> this page
```
"""

_TABLE = """\
## Accuracy

Top-1 in % on the test split, opened once by each training, at its last epoch. *parameters*: without
the head; *seeds*: the fewest and the most that a task has; *SD*: of the mean, over the seeds that
all tasks have. A method that lacks a task comes last, without a mean.
"""

_GROUPED = {group.name: list(group.tasks) for group in writeup.SUITE.groups}
_GROUPS = """\
## Groups

Means over VTAB's three groups of tasks, and the mean of these.
"""

_AT_CHANCE = """\
## Trainings that ended at chance

Their accuracy on test is at most three standard errors above that of guessing. They count in all
means.
"""

_RATES = """\
## Learning rates

The best of 3e-3, 1e-2 and 3e-2 on val200, of equal ones the first; in brackets its accuracy there.
"""


def write(folder: Path) -> Path:
    """Writes the page beside the record.

    Args:
        folder: Where ``results.csv`` is.
    """
    trainings = records.read(folder / records.CSV)
    notes = records.read_json(folder / records.STUDIES) or {}
    text = build([row for row in trainings if row.study in claims.TUNED], notes)
    write_bytes(folder / PAGE, text.encode())
    return folder / PAGE


def build(trainings: Sequence[Record], notes: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of the page.

    Args:
        trainings: The record of its studies.
        notes: Study -> what ``studies.json`` says of it.
    """
    scores = records.scores(trainings)
    runs = '\n'.join(f'python tools/sweep.py run {study} --workers 2' for study in claims.TUNED)
    parts = [_TOP.format(runs=runs), writeup.state(trainings, notes, claims.TUNED)]
    if scores:
        parameters = records.parameters(trainings)
        parts += [_TABLE, per_task.accuracies(scores, parameters, TASKS)]
        if grouped := per_task.groups(scores, parameters, _GROUPED, len(_GROUPED)):
            parts += [_GROUPS, grouped]
        if guessing := writeup.at_chance(trainings):
            parts += [_AT_CHANCE, guessing]
        parts.append(per_task.answers(ASKED, scores))
    parts += [_RATES, per_task.rates(trainings, TASKS)]
    return '\n\n'.join(part.strip() for part in parts) + '\n'
