"""The memory that a training step takes, told before there is one.

Two steps of a config run on fake tensors, which have shapes and no numbers, and the most that lives
at a time is added up: weights, gradients, the optimizer's state, what the backward pass needs, and
what operators hand to each other. Only what an operator keeps to itself while it runs is not seen.
So the peak is that of PyTorch's allocator, without the interpreter, CUDA's context, and blocks that
an allocator keeps for later.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from gleam_mm.config import recipes
from gleam_mm.config.image_size import image_size
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import MODELS, scope_of

_STEPS = 2
"""In the second one the optimizer has its state while the passes run."""

_READS = ('aten::_local_scalar_dense', 'aten::is_nonzero')
"""Operators that hand a number to Python, as the norm of the gradients to the log."""


class LiveMemory(TorchDispatchMode):
    """Within it, the bytes of tensors that are alive are counted, be they fake or real.

    Args:
        tensors: What is there already, and counts as well.

    Attributes:
        peak: The most bytes that were alive at a time.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._storages: dict[int, weakref.ref] = {}
        self._live = 0
        for tensor in tensors:
            self._see(tensor)
        self.peak = self._live

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Runs an operator, and counts what it has made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        self.peak = max(self.peak, self._live)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: object) -> None:
            del self._storages[key]
            self._live -= size

        self._storages[key] = weakref.ref(storage, gone)
        self._live += size


class _Numbers(TorchDispatchMode):
    """Answers with 1 where a number is read, which fake tensors do not have."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func.name() in _READS:
            return 1.0 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


def forecast(
    cfg: Config, model: BaseModel, device: str | torch.device = 'cpu', sample: Any = None
) -> int:
    """The peak of a training step in bytes.

    Args:
        cfg: The whole config, which says the batch size and the optimizer.
        model: Its model, on any device; left as it is.
        device: Where it will be trained. Attention takes other memory on another device, so that it
            has to be there.
        sample: What the training dataset gives for an image; by default an image of the size that
            the backbone expects, of class 0.

    Raises:
        Exception: Whatever the model raises in a step, or PyTorch where a shape depends on numbers.
    """
    if sample is None:
        image = torch.zeros(3, *image_size(cfg.model.backbone), dtype=torch.uint8)
        sample = dict(inputs=image, data_samples=DataSample().set_gt_label(0))
    batch = default_collate([deepcopy(sample) for _ in range(cfg.train_dataloader.batch_size)])
    with scope_of(cfg), _on_fakes(model, torch.device(device)) as tensors:
        wrapper = build_optim_wrapper(model, deepcopy(cfg.optim_wrapper))
        with LiveMemory(tensors) as memory, _Numbers():
            for _ in range(_STEPS):
                model.train_step(batch, wrapper)
    return memory.peak


def forecasts(
    cfg: Config,
    model: PETLClassifier,
    methods: Iterable[str],
    device: str | torch.device = 'cpu',
    sample: Any = None,
) -> Iterator[tuple[str, int | str]]:
    """The peaks of other methods in the place of the config's.

    Args:
        cfg: As of :func:`forecast`.
        model: The config's model, whose backbone is used; its method is taken off.
        methods: Names of presets.
        device: As of :func:`forecast`.
        sample: As of :func:`forecast`.

    Yields:
        A name, and its peak in bytes or why there is none.
    """
    described = cfg.model.to_dict()
    described.pop('teacher', None)
    described.update(head=model.description['head'], probe=False)
    if cfg.get('data_preprocessor') is not None:
        described.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    if model.petl.attached:
        model.petl.detach()
    for name in methods:
        other = None
        try:
            with scope_of(cfg):
                own = dict(petl=recipes.method_preset(name), backbone=model.backbone)
                other = MODELS.build({**described, **own})
            yield name, forecast(cfg, other, device, sample)
        except Exception as error:  # what does not fit the backbone says so in one line
            yield name, ' '.join(str(error).split()) or type(error).__name__
        finally:
            if other is not None:
                other.petl.detach()


@contextmanager
def _on_fakes(model: BaseModel, device: torch.device) -> Iterator[list[Tensor]]:
    """Within it, a model in training has fake tensors on a device; yields them."""
    tables = [
        table for module in model.modules() for table in (module._parameters, module._buffers)
    ]
    own = [dict(table) for table in tables]
    was_training, was_at = model.training, model.data_preprocessor.device
    fakes: dict[int, Tensor] = {}
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            for table in tables:
                for name, tensor in table.items():
                    if tensor is not None and id(tensor) not in fakes:
                        fakes[id(tensor)] = _fake(mode, tensor, device)
                    table[name] = tensor if tensor is None else fakes[id(tensor)]
            model.data_preprocessor.to(device)
            model.train()
            yield list(fakes.values())
    finally:
        for table, tensors in zip(tables, own, strict=True):
            table.update(tensors)
        model.data_preprocessor.to(was_at)
        model.train(was_training)


def _fake(mode: FakeTensorMode, tensor: Tensor, device: torch.device) -> Tensor:
    fake = mode.from_tensor(tensor)
    if fake.device.type == device.type:
        return fake
    with torch.no_grad():
        moved = fake.to(device)
    return nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved
