"""Training loops that go on where they were stopped, and loops of evaluation that save work."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop, ValLoop
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch import nn
from torch.utils.data import DataLoader

from gleam_mm.engine.order import batches_from, make_reproducible
from gleam_mm.petl import constants_folded
from gleam_mm.registry import LOOPS


# All under MMEngine's own names, so that they serve every config.
@LOOPS.register_module(name='EpochBasedTrainLoop')
class EpochTrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which can begin within one.

    Raises:
        ValueError: There is no batch to train on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check(self.dataloader)
        make_reproducible(self.dataloader, self.runner)

    def run(self) -> nn.Module:
        """Trains to the end."""
        self._decide_current_val_interval()  # that of the epoch from which it goes on
        return super().run()

    def run_epoch(self) -> None:
        """Trains on what is left of an epoch; at its very end, nothing but the hooks is left."""
        done = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        if done < len(self.dataloader):
            batches = batches_from(self.dataloader, self._epoch, done)
            for index, batch in enumerate(batches, start=done):
                self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module(name='IterBasedTrainLoop')
class IterTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop over iterations, which passes over what was trained on without loading it.

    Arguments are MMEngine's.

    Raises:
        ValueError: There is no batch to train on.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        # Past the constructor of MMEngine's loop, which begins to load data at once, from the start
        BaseLoop.__init__(self, runner, dataloader)
        if int(max_iters) != max_iters:
            raise ValueError(f'train_cfg.max_iters={max_iters}: expected a whole number')
        self._max_iters, self._max_epochs = int(max_iters), 1
        self._epoch = self._iter = 0
        self.val_begin, self.val_interval = val_begin, val_interval
        self.stop_training = False  # EarlyStoppingHook sets it
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(
            val_interval, dynamic_intervals
        )
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        _check(self.dataloader)
        make_reproducible(self.dataloader, runner)

    def run(self) -> nn.Module:
        """Trains to the end."""
        self._decide_current_val_interval()
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')  # the whole training is one epoch to hooks
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if (
                self.runner.val_loop is not None
                and self._iter >= self.val_begin
                and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
            ):
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _batches(self) -> Iterator[Any]:
        """Goes through the data again and again, from the next iteration on."""
        sampler = getattr(self.dataloader.batch_sampler, 'sampler', self.dataloader.sampler)
        if isinstance(sampler, InfiniteSampler):
            passes, done = 0, self._iter
        else:
            passes, done = divmod(self._iter, len(self.dataloader))
        while True:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(passes)
            yield from batches_from(self.dataloader, passes, done)
            passes, done = passes + 1, 0


@LOOPS.register_module(name='ValLoop')
class FoldingValLoop(ValLoop):
    """MMEngine's loop of validation, in which methods compute once what no image changes."""

    def run(self) -> dict:
        """Validates."""
        with constants_folded(self.runner.model):
            return super().run()


@LOOPS.register_module(name='TestLoop')
class FoldingTestLoop(TestLoop):
    """MMEngine's loop of testing, in which methods compute once what no image changes."""

    def run(self) -> dict:
        """Tests."""
        with constants_folded(self.runner.model):
            return super().run()


def _check(loader: DataLoader) -> None:
    if len(loader) > 0:
        return
    dataset: Any = loader.dataset  # has a length, for the loader has one
    images = len(dataset)
    if images == 0:
        raise ValueError('train_dataloader.dataset has no images')
    raise ValueError(
        f'train_dataloader makes no batch: of {images} images, batches of {loader.batch_size or ""}'
        ' with drop_last=True leave nothing; set train_dataloader.batch_size to '
        f'{images} at most, or train_dataloader.drop_last=False'
    )
