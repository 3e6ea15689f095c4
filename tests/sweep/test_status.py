"""What is told of a sweep, from trials that nobody has run."""

import datetime
import io

import pytest
from rich.console import Console

from gleam_mm.sweep import Job, Sweep
from gleam_mm.sweep.cells import COMPLETE, FAILED, RUNNING, Trial, cells_of
from gleam_mm.sweep.plan import SELECT
from gleam_mm.sweep.status import remaining_seconds, status


@pytest.mark.parametrize(('started', 'left'), [((0, 0), 100), ((0, 90), 100), ((60, 90), 40)])
def test_workers_without_a_training_do_not_shorten_the_rest(started, left):
    """Of trainings that take 100 s, on four workers."""
    sweep = Sweep('vit-mini', ('lora',), ('vtab-dtd',), seeds=(0, 1, 2))
    now = datetime.datetime.now()

    def trial(number, state, before):
        start = now - datetime.timedelta(seconds=before)
        return Trial(
            number, sweep.final_jobs('lora', 'vtab-dtd')[number], state, 50.0, {}, start, now
        )

    trials = [trial(0, COMPLETE, 100), *(trial(i + 1, RUNNING, s) for i, s in enumerate(started))]
    assert remaining_seconds(cells_of(sweep, trials), 4) == pytest.approx(left, abs=5)


def test_what_a_failed_selection_blocks_is_told_and_not_waited_for():
    sweep = Sweep(
        'vit-mini',
        ('lora',),
        ('vtab-dtd', 'vtab-dmlab'),
        seeds=(0, 1, 2, 3, 4),
        grid={'lora': {'alpha': [1, 8]}},
    )
    now = datetime.datetime.now()
    before = now - datetime.timedelta(seconds=100)

    def trial(number, dataset, alpha, state, accuracy=None, notes=None, start=before):
        job = Job(SELECT, 'lora', dataset, 0, {'alpha': alpha})
        return Trial(number, job, state, accuracy, notes or {}, start, now)

    cells = cells_of(
        sweep,
        [
            trial(0, 'vtab-dtd', 1, COMPLETE, 50.0),
            trial(1, 'vtab-dtd', 8, FAILED, notes={'error': 'no memory', 'log': 'here'}),
            trial(2, 'vtab-dmlab', 1, COMPLETE, 50.0),
            trial(3, 'vtab-dmlab', 8, RUNNING, start=now),
        ],
    )
    assert remaining_seconds(cells) == pytest.approx(6 * 100, abs=10)  # and 5 that will be ready
    shown = Console(file=io.StringIO(), width=200)
    shown.print(status(cells), soft_wrap=True)
    text = shown.file.getvalue()
    assert '1/2, 1 failed   0/5, 5 blocked' in text
    assert '10 waiting (5 blocked by a failed selection: resume --retry-failed), 1 failed' in text
