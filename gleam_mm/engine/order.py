"""What is random in a training follows from the seed and the position, not from what came before.

A resumed run draws what an uninterrupted one draws, whatever the number of data loader workers,
whether they live on between epochs, and whatever validation has drawn in between.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
    get_worker_info,
)

from gleam_mm.registry import HOOKS

_DATA = (1,)  # sets the numbers that load data apart from those that the model draws


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every epoch from the run's seed, the number of the epoch and the rank.

    A resumed run then draws the same noise as one that was never interrupted, and the processes of
    a distributed run draw noise of their own. Where a run can be resumed within an epoch, which is
    where checkpoints are written every few iterations, or where there are no epochs, every
    iteration is seeded, by its number.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds Python, numpy and torch on all devices."""
        self._within_epochs = not isinstance(runner.train_loop, EpochBasedTrainLoop) or any(
            isinstance(hook, CheckpointHook) and not hook.by_epoch for hook in runner.hooks
        )
        _seed_all(runner.seed, runner.epoch, get_rank())

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds them again where training may begin here."""
        if self._within_epochs:
            _seed_all(runner.seed, runner.epoch, get_rank(), runner.iter)


def _seed_all(*position: int) -> None:
    seed = _seed(position)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _seed(position: Sequence[int], purpose: tuple[int, ...] = ()) -> int:
    return int(np.random.SeedSequence(position, spawn_key=purpose).generate_state(1)[0])


class _SeededBatch(list):
    """The indices of a batch, which seed the process that loads them when it reads them.

    Args:
        indices: What the dataset is asked for.
        seed: The seed of all that is random in loading them.
    """

    def __init__(self, indices: Sequence[int], seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        with _drawing_from(self.seed):
            yield from super().__iter__()

    def __reduce__(self) -> tuple:
        return _SeededBatch, (self[:], self.seed)


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Seeds the CPU's generators and, outside of a worker process, puts their states back."""
    mine = get_worker_info() is None
    if mine:
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        if mine:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


class SeededBatchSampler(Sampler):
    """Gives each batch a seed, and can begin within an epoch without loading what is passed over.

    Args:
        batches: The batch sampler that decides what is in each batch.
        runner: The runner, whose seed is asked for at the start of each epoch.

    Attributes:
        epoch (int): The number of the coming epoch.
        start (int): How many of its batches are passed over.
    """

    def __init__(self, batches: BatchSampler, runner: Runner) -> None:
        self.batches = batches
        self.epoch = self.start = 0
        self._runner = runner

    @property
    def sampler(self) -> Sampler | Iterable[int]:
        """The sampler of single indices."""
        return self.batches.sampler

    @property
    def batch_size(self) -> int:
        """How many indices a batch has."""
        return self.batches.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a last batch with fewer indices is left out."""
        return self.batches.drop_last

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[_SeededBatch]:
        epoch = self._runner.seed, self.epoch, get_rank()
        for number, indices in itertools.islice(enumerate(self.batches), self.start, None):
            yield _SeededBatch(indices, _seed((*epoch, number), _DATA))


def make_reproducible(loader: DataLoader, runner: Runner) -> None:
    """Makes what a data loader draws a function of the run's seed, the epoch and the batch.

    Args:
        loader: The loader of a training loop; changed in place. One over an iterable dataset, which
            decides for itself what comes next, is left as it is.
        runner: The runner.
    """
    if loader.batch_sampler is not None and not isinstance(loader.dataset, IterableDataset):
        # DataLoader lets nobody set this attribute after its construction, because a running
        # iterator would not notice. There is none yet.
        batches = SeededBatchSampler(cast(BatchSampler, loader.batch_sampler), runner)
        object.__setattr__(loader, 'batch_sampler', batches)


def batches_from(loader: DataLoader, epoch: int, start: int) -> Iterator[Any]:
    """Iterates over the rest of an epoch.

    Args:
        loader: The loader of a training loop.
        epoch: The number of the epoch.
        start: How many of its batches were trained on already.
    """
    # Every epoch takes one number from the generator of the model's noise, whether workers are
    # started for it, live on or are none at all.
    number = int(torch.empty((), dtype=torch.int64).random_())
    loader.generator = torch.Generator().manual_seed(number)
    if isinstance(loader.batch_sampler, SeededBatchSampler):
        loader.batch_sampler.epoch, loader.batch_sampler.start = epoch, start
        return iter(loader)
    return itertools.islice(loader, start, None)


def stop_workers(loader: DataLoader) -> None:
    """Ends worker processes that live on between epochs.

    Left to the garbage collector, which ends the queue to them first, each takes five seconds.
    """
    iterator: Any = getattr(loader, '_iterator', None)
    if hasattr(iterator, '_shutdown_workers'):
        iterator._shutdown_workers()
        loader._iterator = None
