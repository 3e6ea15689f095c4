"""The lock on the splits, attacked from within everything that a sweep or a search does with data.

At every opportunity (a list is loaded, a model built, a step made) each of the four splits is
tried, and what opened is noted by the place that it was tried from.
"""

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from sweep_place import OPTIONS

from gleam_mm.config import recipes
from gleam_mm.datasets import VTAB1K
from gleam_mm.datasets.vtab import SPLITS
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import MODELS
from gleam_mm.search.evolution import Settings
from gleam_mm.search.subnet import SubnetSearch
from gleam_mm.sweep import Sweep, configure, training
from gleam_mm.sweep.estimate import estimate
from gleam_mm.sweep.plan import FINAL, SELECT
from gleam_mm.sweep.protocol import ProtocolError

SELECTION = {'train800', 'val200'}


def at(places, splits):
    return dict.fromkeys(places, splits)


@pytest.fixture
def opened(place, monkeypatch):
    """Place of an attack -> the splits that it opened."""
    found, attacking = defaultdict(set), []

    def attack(where):
        if attacking:
            return
        attacking.append(True)
        found[where]  # that it was tried counts as well
        for split in SPLITS:
            try:
                VTAB1K('kitti', split, data_root='data/vtab-1k')
                found[where].add(split)
            except ProtocolError as error:
                assert f'the split {split!r} is closed now' in str(error)
        attacking.pop()

    def after(owner, method, name):
        inner = getattr(owner, method)

        def attacked(self, *args, **kwargs):
            result = inner(self, *args, **kwargs)
            attack(name(self) if callable(name) else name)
            return result

        monkeypatch.setattr(owner, method, attacked)

    after(VTAB1K, 'load_data_list', lambda dataset: f'loading {dataset.split}')
    after(PETLClassifier, '__init__', 'building')
    for step in ('train_step', 'val_step', 'test_step'):
        after(PETLClassifier, step, step)
    yield found
    attack('afterwards')
    assert found['afterwards'] == set(SPLITS)


@pytest.fixture
def sweep():
    return Sweep('tiny', ('lora',), ('vtab-kitti',), grid={'lora': {'alpha': [1]}}, options=OPTIONS)


def train(sweep, phase, folder):
    job = next(job for job in sweep.jobs('lora', 'vtab-kitti') if job.phase == phase)
    training.train(sweep, job, folder, 'study', lambda epoch, epochs: None)


@pytest.mark.slow
def test_while_options_are_chosen(opened, sweep, tmp_path):
    train(sweep, SELECT, tmp_path)
    places = ('loading train800', 'loading val200', 'building', 'train_step', 'val_step')
    assert opened == at(places, SELECTION)


def test_in_final_trainings_and_their_tests(opened, sweep, tmp_path):
    train(sweep, FINAL, tmp_path)
    places = ('loading train800val200', 'building', 'train_step')
    assert opened == {
        **at(places, {'train800val200'}),
        **at(('loading test', 'test_step'), {'test'}),
    }


@pytest.mark.slow
def test_before_the_first_training(opened, sweep):
    configure.check(sweep)
    places = ('loading train800', 'loading val200', 'loading train800val200', 'building')
    assert opened == at(places, {*SELECTION, 'train800val200'})


@pytest.mark.slow
def test_in_estimates(opened, sweep):
    estimate(sweep, sweep.jobs('lora', 'vtab-kitti'))
    assert opened.pop('loading val200') <= SELECTION  # for its length val200 alone is open
    places = ('loading train800', 'building', 'train_step', 'val_step')
    assert opened == {
        **at(places, SELECTION),
        'loading train800val200': {'train800val200'},
        'loading test': {'test'},
    }


@pytest.mark.slow
def test_in_a_search(opened, tmp_path):
    cfg = recipes.load('tiny_glora_vtab-kitti', OPTIONS)
    cfg.work_dir = str(tmp_path)
    head = {**cfg.model.head, 'num_classes': 4}
    torch.save({'state_dict': MODELS.build({**cfg.model, 'head': head}).state_dict()}, 'super.pth')
    opened.clear()
    SubnetSearch(cfg, Path('super.pth'), Settings(generations=1, population=1)).run()
    assert opened == at(('loading val200', 'building', 'val_step'), SELECTION)
