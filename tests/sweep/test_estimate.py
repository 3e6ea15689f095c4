"""How long a sweep will take, on the tiny backbone."""

import argparse
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweep_place import OPTIONS

from gleam_mm.errors import UserError
from gleam_mm.sweep import Sweep, commands
from gleam_mm.sweep import estimate as estimates
from gleam_mm.sweep.estimate import Estimate, estimate, wall_seconds
from gleam_mm.sweep.plan import SELECT, Variant
from gleam_mm.sweep.study import begin_study


def sweep(**settings):
    defaults = dict(
        backbone='tiny',
        methods=('linear', 'lora-r2'),
        datasets=('vtab-kitti', 'vtab-dmlab'),
        seeds=(0, 1, 2),
        grid={'lora-r2': {'alpha': [1, 8]}},
        options={**OPTIONS, 'train_cfg.max_epochs': 5},
        variants={'lora-r2': Variant('lora', {'rank': 2})},
    )
    return Sweep(**{**defaults, **settings})


def jobs_of(sweep):
    return [job for pair in sweep.pairs() for job in sweep.jobs(*pair)]


@pytest.mark.slow
def test_every_method_is_timed_and_nothing_written(place):
    before = sorted(place.rglob('*')), torch.get_num_threads()
    settings = sweep()
    found = estimate(settings, jobs_of(settings), workers=2)
    assert (sorted(place.rglob('*')), torch.get_num_threads()) == before
    assert [(row.method, row.trainings) for row in found] == [('linear', 6), ('lora-r2', 10)]
    assert all(row.seconds > 0 for row in found)


# Trainings on train800 have two batches and judge 4 images; final ones have 3 and judge 6.
START, ITERATION, IMAGE = 1000, 10, 0.1
SELECTION = START + 5 * 2 * ITERATION + 5 * 4 * IMAGE
FINAL = START + 5 * 3 * ITERATION + 6 * IMAGE

EPOCHS, BATCH = 'train_cfg.max_epochs', 'train_dataloader.batch_size'
RATE = 'optim_wrapper.optimizer.lr'


@pytest.fixture
def paced(monkeypatch):
    pace = estimates._Pace(START, ITERATION, IMAGE)
    monkeypatch.setattr(estimates, '_pace', lambda sweep, method, options: pace)


@pytest.mark.slow
def test_trainings_add_up(place, paced):
    settings = sweep()
    jobs = jobs_of(settings)
    linear, lora = estimate(settings, jobs)
    assert linear.seconds == pytest.approx(2 * 3 * FINAL)
    assert lora.seconds == pytest.approx(2 * (2 * SELECTION + 3 * FINAL))
    (rest,) = estimate(settings, [job for job in jobs if job.phase == SELECT])
    assert rest == Estimate('lora-r2', 4, pytest.approx(4 * SELECTION))


def test_validations_are_counted_as_mmengine_makes_them(place, paced):
    options = {**OPTIONS, 'train_cfg.max_epochs': 5, 'train_cfg.val_interval': 2}
    settings = sweep(options=options, final=False)
    (lora,) = estimate(settings, jobs_of(settings))  # after epochs 2, 4 and 5
    assert lora.seconds / 4 == pytest.approx(SELECTION - 2 * 4 * IMAGE)


def test_each_point_has_its_length_and_each_batch_size_its_pace(place, monkeypatch):
    timed = []

    def pace(sweep, method, options):
        timed.append(options)
        return estimates._Pace(0.0, options[BATCH], 0.0)  # a second an image

    monkeypatch.setattr(estimates, '_pace', pace)
    grid = {EPOCHS: [1, 5], BATCH: [4, 8], RATE: [1e-3, 1e-2], 'alpha': [0.1, 1]}
    settings = sweep(methods=('lora-r2',), datasets=('vtab-kitti',), grid={'lora-r2': grid})
    jobs = jobs_of(settings)
    (selection,) = estimate(settings, [job for job in jobs if job.phase == SELECT])
    # Two batches of 4, or one of 8, in 1 or 5 epochs; a rate and an alpha change nothing.
    assert selection.seconds == pytest.approx(4 * (1 + 5) * (2 * 4 + 1 * 8))
    assert timed == [{BATCH: 4}, {BATCH: 8}]
    finals = [job for job in jobs if job.phase != SELECT]
    (unknown,) = estimate(settings, finals)  # three batches of 4, or two of 8
    assert unknown.seconds / 3 == pytest.approx((1 + 5) / 2 * (3 * 4 + 2 * 8) / 2)
    point = {EPOCHS: 5, BATCH: 8, RATE: 1e-3, 'alpha': 1}
    (chosen,) = estimate(settings, [replace(job, options=point) for job in finals])
    assert chosen.seconds / 3 == pytest.approx(5 * 2 * 8)


def test_workers_share_the_work():
    rows = [Estimate('linear', 2, 60.0), Estimate('lora', 1, 60.0)]
    assert [wall_seconds(rows, workers) for workers in (1, 2, 3, 100)] == [120, 60, 60, 60]
    rows = [Estimate('linear', 3, 30.0), Estimate('full', 1, 600.0)]
    assert [wall_seconds(rows, workers) for workers in (1, 2, 4)] == [630, 600, 600]
    assert wall_seconds([], 4) == 0


@pytest.mark.slow
def test_the_command_knows_what_is_left(place, paced, capsys):
    def told(name, workers=None):
        commands.estimate(argparse.Namespace(sweep=name, name=None, workers=workers))
        return capsys.readouterr().out

    settings = sweep(methods=('linear',), grid={}, variants={})
    Path('planned.py').write_text(
        "backbone = 'tiny'\nmethods = ['linear']\ndatasets = ['vtab-kitti', 'vtab-dmlab']\n"
        f'seeds = 3\noptions = {settings.options}\n',
        encoding='utf-8',
    )
    shown = told('planned.py', workers=2)
    assert re.search(rf'linear +6 +{FINAL:.1f} ', shown)
    assert '6 trainings: 1:55:04 in all, 57:32 with 2 workers; an estimate' in shown

    study = begin_study('left.db', 'left', settings)
    study.register()
    study.claim({'host': 'here', 'pid': 1}).complete(50.0)
    study.claim({'host': 'here', 'pid': 1}).fail('no memory')
    assert '4 trainings: ' in told('left.db')


def test_what_a_failed_selection_blocks_is_not_estimated(tmp_path):
    storage = str(tmp_path / 'blocked.db')
    study = begin_study(storage, 'blocked', sweep(datasets=('vtab-kitti',)))
    study.register()
    study.claim({'host': 'here', 'pid': 1}).fail('no memory')
    _, jobs = commands._planned(storage, None)
    left = Counter((job.method, job.phase) for job in jobs)
    assert left == {('linear', 'final'): 3, ('lora-r2', 'select'): 1}


def test_what_cannot_be_set_up_is_named(place):
    settings = sweep(variants={'lora-r2': Variant('lora', {'rank': 0})})
    with pytest.raises(UserError, match=r'lora-r2: .*rank'):
        estimate(settings, jobs_of(settings))
