"""Studies with made-up results, for tests of the report."""

import itertools
import random

from gleam_mm.report import Study
from gleam_mm.report.suites import SUITES
from gleam_mm.sweep.results import Result

VTAB = list(SUITES[0].tasks)
PARAMETERS = {
    'full': 85_798_656,
    'linear': 0,
    'lora': 294_912,
    'fact': 61_440,
    'slora': 25_000,
    'gleam-t': 9_056,
    'gleam-b': 23_872,
    'gleam-l': 70_784,
}


def curve(epochs=10, start=2.0):
    return [
        {'epoch': epoch, 'loss': start * 0.8**epoch, 'lr': 1e-3} for epoch in range(1, epochs + 1)
    ]


def final(method='lora', dataset='vtab-cifar', seed=0, accuracy=50.0, **more):
    """A final training; without an accuracy it still waits."""
    done = accuracy is not None
    given = dict(
        backbone='vit-b',
        method=method,
        dataset=dataset,
        phase='final',
        seed=seed,
        options={},
        state='complete' if done else 'waiting',
        accuracy=accuracy,
        parameters=PARAMETERS.get(method, 1000) if done else None,
        seconds=60.0 if done else None,
        curve=curve() if done else [],
    )
    return Result(**{**given, **more})


def select(method='lora', dataset='vtab-cifar', accuracy=99.9, **more):
    """A training that chooses options."""
    return final(method, dataset, 0, accuracy, **{'phase': 'select', **more})


def whole(
    methods=('lora', 'gleam-l'),
    datasets=VTAB,
    seeds=(0, 1, 2),
    name='whole',
    overrides=None,
    **more,
):
    """A study in which everything is done; numbers are random but always the same."""
    dice = random.Random(name)
    results = [
        final(method, dataset, seed, round(dice.uniform(30, 95), 4), **more)
        for method, dataset, seed in itertools.product(methods, datasets, seeds)
    ]
    return Study(name, results, overrides or {})
