"""What is random in a training follows from the seed and the position."""

import itertools
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from runs import EPOCHS, ITERATIONS, PICTURES, to_sample
from torch.utils.data import DataLoader, get_worker_info

from gleam_mm.engine import console_hook, order
from gleam_mm.errors import UserError


class Note(Hook):
    """Notes what a forward pass would draw, and what the data loader has drawn."""

    priority = 'LOWEST'

    def __init__(self):
        self.noise, self.data = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        state = torch.get_rng_state()
        self.noise.append(torch.rand(3).tolist())
        torch.set_rng_state(state)
        self.data.append(data_batch['inputs'].sum().item())


def noted(make_runner, **options):
    note = Note()
    make_runner(hooks=[note], **options).train()
    return note


def distinct(values):
    return len({str(value) for value in values})


def test_every_epoch_and_every_image_has_noise_of_its_own(make_runner, tmp_path):
    note = noted(make_runner)
    assert distinct(note.noise) == distinct(note.data) == EPOCHS * ITERATIONS
    another = noted(make_runner, randomness=dict(seed=1), work_dir=tmp_path / 'another')
    assert not set(note.data) & set(another.data)
    assert note.noise[0] != another.noise[0]


@pytest.mark.parametrize('within', [False, True])
@pytest.mark.parametrize(
    'loader', [dict(num_workers=1), dict(num_workers=2, persistent_workers=True)]
)
def test_workers_change_nothing(loader, within, make_runner, tmp_path):
    checkpoint = dict(by_epoch=not within)
    alone = noted(make_runner, checkpoint=checkpoint)
    note = noted(make_runner, checkpoint=checkpoint, loader=loader, work_dir=tmp_path / 'workers')
    assert note.noise == alone.noise
    assert note.data == alone.data


def test_each_rank_has_noise_of_its_own_and_the_first_that_of_one_process(make_runner, monkeypatch):
    def of_rank(rank):
        monkeypatch.setattr(order, 'get_rank', lambda: rank)
        return noted(make_runner)

    alone = noted(make_runner)
    first, second = of_rank(0), of_rank(1)
    assert first.noise == alone.noise and first.data == alone.data
    assert distinct(first.noise + second.noise) == 2 * EPOCHS * ITERATIONS
    assert not set(first.data) & set(second.data)


@pytest.fixture
def loader():
    class Runner:
        seed = 5

    loader = DataLoader(
        PICTURES,
        batch_size=2,
        collate_fn=lambda samples: torch.stack([sample['inputs'] for sample in samples]),
    )
    order.make_reproducible(loader, Runner)
    return loader


def test_loading_leaves_the_noise_of_the_model_alone(loader):
    states = []
    for batches in (0, 4):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        taken = list(itertools.islice(order.batches_from(loader, 0, 0), batches))
        assert len(taken) == batches
        states.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert states[0] == states[1]


def test_an_epoch_can_begin_anywhere(loader):
    whole = list(order.batches_from(loader, 1, 0))
    rest = list(order.batches_from(loader, 1, 3))
    assert len(whole) == len(loader) == 4 and len(rest) == 1
    assert torch.equal(rest[0], whole[3])
    assert not torch.equal(next(order.batches_from(loader, 2, 0)), whole[0])


class Dying(BaseDataset):
    """Images of which the second kills who loads it, as a system without memory does."""

    METAINFO = PICTURES.METAINFO

    def load_data_list(self):
        return PICTURES.load_data_list()

    def prepare_data(self, index):
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare_data(index)


def test_a_worker_that_the_system_has_killed_is_told_in_a_line(make_runner):
    dying = Dying(pipeline=[to_sample], serialize_data=False)
    runner = make_runner(loader=dict(num_workers=1, dataset=dying), script=())
    with pytest.raises(UserError, match=r'a data loader worker died.*fewer workers.*smaller batch'):
        runner.train()


def test_a_first_step_that_takes_long_says_that_it_runs(make_runner, monkeypatch):
    told = []
    monkeypatch.setattr(console_hook, '_PATIENCE_SECONDS', 0.01)

    class Slow(Hook):
        def before_train(self, runner):
            monkeypatch.setattr(runner.logger, 'warning', told.append)

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 0:
                time.sleep(0.2)

    make_runner(hooks=[Slow()], script=()).train()
    assert [line for line in told if 'first step' in line] == [
        'The first step has taken 0.01 seconds so far and goes on, for 4 images. If it never ends: '
        'fewer images (train_dataloader.batch_size), or smaller ones'
    ]
