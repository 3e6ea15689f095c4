"""Images or features that stay on the device for a whole training."""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from gleam_mm.arguments import Checked, Range
from gleam_mm.datasets.image_list import DETERMINISTIC
from gleam_mm.engine.dist import unwrapped
from gleam_mm.engine.pictures_hook import PicturesHook
from gleam_mm.models.frozen_prefix import Cached, FrozenPrefix, random_states
from gleam_mm.registry import HOOKS

_STILL = (*DETERMINISTIC, 'PackInputs')


@HOOKS.register_module()
class DeviceCacheHook(Checked, Hook):
    """Loads the images of a training once, and keeps them, or features of them, on the device.

    With ``cache_images`` the pictures of training and validation lie on the device as the pipeline
    gives them, eight bits a channel, and are normalised there: batches are the same bit for bit,
    and nothing is loaded, collated or copied any more. With ``cache_features`` what the frozen
    backbone makes of them before the first block that is trained is computed once, see
    :class:`~gleam_mm.models.FrozenPrefix`: for a linear probe that is all of the backbone. Features
    are computed in batches of another order than those of training, and are the same as far as the
    device computes an image alike beside others: on a CPU mostly bit for bit, else to rounding.

    Either needs a pipeline that makes the same of an image each time. Every process of a
    distributed training keeps all images. A training that resumes computes them again. Other loops,
    such as the test, read images as always.

    Args:
        cache_images: Whether to keep images.
        cache_features: Whether to keep features instead.
        most_gib: How much memory they may take, in GiB. Features are as large as the activations
            are: on a ViT-B at 224 in float32, 3 KB an image for a linear probe, 605 KB for a method
            in the last blocks.

    Raises:
        ArgumentError: An argument is of another type or out of range.
        ValueError: Both are to be kept.
    """

    priority = 'VERY_LOW'  # after checkpoints are loaded and methods have looked at their data

    def __init__(
        self,
        cache_images: bool = False,
        cache_features: bool = False,
        most_gib: Annotated[float, Range(0, open=True)] = 4.0,
    ) -> None:
        if cache_images and cache_features:
            raise ValueError(
                'choose one of cache_images and cache_features: features need no image'
            )
        self.name = 'cache_features' if cache_features else 'cache_images'
        self.enabled = cache_images or cache_features
        self.most = most_gib * 2**30
        self._undone: list[tuple[DataLoader, Dataset, int]] = []

    def before_train(self, runner: Runner) -> None:
        """Fills the cache.

        Raises:
            ValueError: Images or features are not the same each time, or take too much memory.
        """
        if not self.enabled:
            return
        model = unwrapped(runner.model)
        self._require_still(runner, model)
        loops = [runner.train_loop, *([runner.val_loop] if runner.val_loop is not None else [])]
        prefix = self._prefix(runner, model) if self.name == 'cache_features' else None
        store = _Store(model.data_preprocessor, prefix)
        for loop in loops:
            training = loop is runner.train_loop
            with runner.optim_wrapper.optim_context(model) if training else nullcontext():
                self._hold(loop.dataloader, model, store)
        model.data_preprocessor = store
        told = ''
        if prefix is not None:
            left = 'the head alone' if prefix.start is None else f'blocks from {prefix.start} on'
            told = f'; computed from now on: {left}'
        runner.logger.info(
            f'{self.name}: {len(store):,} images, {store.nbytes / 2**20:.1f} MiB are kept{told}'
        )

    def after_train(self, runner: Runner) -> None:
        """Lets go of everything."""
        model = unwrapped(runner.model)
        if isinstance(model.data_preprocessor, _Store):
            model.data_preprocessor = model.data_preprocessor.inner
        for loader, dataset, workers in self._undone:
            _set(loader, dataset, workers)
        self._undone = []

    def _require_still(self, runner: Runner, model: nn.Module) -> None:
        """Refuses what makes something else of an image each time, or wants to see it."""
        if getattr(model.data_preprocessor, 'batch_augments', None) is not None:
            raise ValueError(
                f'{self.name}: model.train_cfg.augments mixes images at random; do without one of '
                'them'
            )
        if self.name == 'cache_features' and getattr(model, 'teacher', None) is not None:
            raise ValueError('cache_features: model.teacher reads images; do without one of them')
        if self.name == 'cache_features' and runner.cfg.get('compile'):
            raise ValueError(
                'cache_features: compile=True compiles all of the backbone; do without one of them'
            )
        if any(isinstance(hook, PicturesHook) and hook.enable for hook in runner.hooks):
            raise ValueError(
                f'{self.name}: default_hooks.visualization draws the pictures of a validation, '
                'which are not loaded any more; do without one of them'
            )
        dataset: Any = runner.train_dataloader.dataset
        if isinstance(dataset, IterableDataset):
            raise ValueError(f'{self.name}: the training data have no numbers to keep them by')
        device = next(model.parameters()).device
        before = random_states(device)
        dataset[0]
        if random_states(device) != before:
            transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
            names = [type(transform).__name__ for transform in transforms]
            suspects = ', '.join(name for name in names if name not in _STILL) or 'its pipeline'
            raise ValueError(
                f'{self.name}: the training images are augmented at random ({suspects}), and are '
                'others each time: take a pipeline without, or do without the cache'
            )

    def _prefix(self, runner: Runner, model: Any) -> FrozenPrefix:
        loader = runner.train_dataloader
        few: Any = [loader.dataset[index] for index in range(min(2, len(loader.dataset)))]
        mode = model.training
        model.train()
        try:
            with runner.optim_wrapper.optim_context(model):
                data = model.data_preprocessor(loader.collate_fn(few), training=False)
                return FrozenPrefix(model.backbone, model.petl, data['inputs'])
        except ValueError as error:
            raise ValueError(f'cache_features: {error}') from error
        finally:
            model.train(mode)

    @torch.no_grad()
    def _hold(self, loader: Any, model: Any, store: '_Store') -> None:
        """Goes through the images of a loader once, and lets it give their numbers instead."""
        dataset = loader.dataset
        images = DataLoader(
            dataset,
            loader.batch_sampler.batch_size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )
        shelf = _Shelf(len(store), len(dataset))
        mode, samples = model.training, []
        model.eval()
        for batch in images:
            samples += copy.deepcopy(batch['data_samples'])
            values = store.values(batch, next(model.parameters()).device)
            self._require_room(store.nbytes, len(dataset), values)
            shelf.take(values)
        model.train(mode)
        store.shelves.append(shelf)
        self._undone.append((loader, dataset, loader.num_workers))
        _set(loader, _Held(dataset, samples, shelf.start), 0)

    def _require_room(self, taken: int, number: int, values: list[Tensor]) -> None:
        each = sum(value.nbytes / len(value) for value in values)
        if taken + number * each > self.most:
            raise ValueError(
                f'{self.name}: {number:,} images of {_size(each)} take {_size(number * each)}, and '
                f'{_size(self.most)} are allowed (most_gib={self.most / 2**30:g} of this hook): '
                'allow more, or do without the cache'
            )


def _size(count: float) -> str:
    """A number of bytes, in the largest unit of which it has one."""
    power = next((power for power in (3, 2, 1) if count >= 1024**power), 0)
    return f'{count / 1024**power:.4g} {("bytes", "KiB", "MiB", "GiB")[power]}'


class _Shelf:
    """What is kept of the images of one loader.

    Args:
        start: The number of its first image.
        size: How many images it has.
    """

    def __init__(self, start: int, size: int) -> None:
        self.start, self.size = start, size
        self.tensors: list[Tensor] = []
        self._filled = 0

    def take(self, values: list[Tensor]) -> None:
        """Takes those of the next images."""
        if not self.tensors:
            self.tensors = [value.new_empty((self.size, *value.shape[1:])) for value in values]
        stop = self._filled + len(values[0])
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor[self._filled : stop] = value
        self._filled = stop


class _Store(nn.Module):
    """A data preprocessor that takes images by their numbers, and otherwise those that it gets.

    Args:
        inner: The model's own.
        prefix: What makes the features, where those are kept.
    """

    def __init__(self, inner: nn.Module, prefix: FrozenPrefix | None) -> None:
        super().__init__()
        self.inner: Any = inner
        self.prefix = prefix
        self.shelves: list[_Shelf] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # as a teacher asks how images were normalised
            return getattr(super().__getattr__('inner'), name)

    def __len__(self) -> int:
        return sum(shelf.size for shelf in self.shelves)

    @property
    def nbytes(self) -> int:
        """How much memory the images or features take."""
        return sum(tensor.nbytes for shelf in self.shelves for tensor in shelf.tensors)

    def values(self, batch: Mapping[str, Any], device: torch.device) -> list[Tensor]:
        """What is to be kept of a batch of images."""
        if self.prefix is not None:
            return self.prefix.features(self.inner(batch, training=False)['inputs'])
        inputs = batch['inputs']
        return [(inputs if isinstance(inputs, Tensor) else torch.stack([*inputs])).to(device)]

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Gives what a model reads."""
        first = data['inputs'][0]
        if first.dim():
            return self.inner(data, training)
        numbers = torch.stack([*data['inputs']])
        (shelf,) = (s for s in self.shelves if s.start <= first < s.start + s.size)
        places = (numbers - shelf.start).to(shelf.tensors[0].device)
        values = [tensor[places] for tensor in shelf.tensors]
        if self.prefix is None:
            return self.inner({**data, 'inputs': values[0]}, training)
        blank = torch.zeros(len(numbers), 1, 1, 1)  # it prepares the labels as well
        return {**self.inner({**data, 'inputs': blank}), 'inputs': Cached(self.prefix, values)}


class _Held(Dataset):
    """A dataset that gives the number of an image instead of it, and otherwise is as it was."""

    def __init__(self, dataset: Dataset, samples: list, start: int) -> None:
        self._dataset, self._samples, self._start = dataset, samples, start

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = copy.deepcopy(self._samples[index])  # predictions are written into it
        return dict(inputs=torch.tensor(self._start + index), data_samples=sample)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):  # how a data loader asks is decided here
            raise AttributeError(name)
        return getattr(self._dataset, name)


def _set(loader: DataLoader, dataset: Dataset, workers: int) -> None:
    # DataLoader lets nobody set its dataset after its construction, because a running iterator
    # would not notice. There is none now.
    object.__setattr__(loader, 'dataset', dataset)
    loader.num_workers = workers
