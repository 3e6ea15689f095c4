"""A look at training data before the first step, for the methods that ask for one."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from gleam_mm.arguments import Checked, Positive
from gleam_mm.engine.dist import unwrapped
from gleam_mm.petl import LossOfBatch, PETLMethod
from gleam_mm.registry import HOOKS


@HOOKS.register_module()
class CalibrateHook(Checked, Hook):
    """Calls ``calibrate`` of the method that is trained, if it has one, when a training begins.

    It runs on the first process, on batches drawn by the run's seed alone, and the others get the
    parameters and buffers that it has left. What an epoch draws does not depend on it, see
    :class:`~gleam_mm.engine.EpochSeedHook`. A training that resumes, or starts from
    a checkpoint, has them from there.

    Args:
        num_batches: How many batches the method may look at.
    """

    def __init__(self, num_batches: Positive = 8) -> None:
        self.num_batches = num_batches

    def before_train(self, runner: Runner) -> None:
        """Calibrates."""
        model = unwrapped(runner.model)
        method = getattr(model, 'petl', None)
        if not isinstance(method, PETLMethod) or runner.iter or runner._load_from:
            return
        members = [member for member in method.members() if member.calibrates]
        if not members:
            return
        if dist.is_main_process():
            with first_batches(runner, self.num_batches) as batches:
                for member in members:
                    member.calibrate(batches)
            model.zero_grad(set_to_none=True)
        for tensor in (*method.parameters(), *method.buffers()):
            dist.broadcast(tensor.data)


@contextmanager
def first_batches(runner: Runner, number: int) -> Iterator[list[LossOfBatch]]:
    """What computes the loss of each of a few batches, drawn by the run's seed alone.

    The model is in evaluation mode meanwhile: what it draws at random, or counts of its steps, has
    no part in what is measured, and one process may look alone.
    """
    images = runner.train_dataloader
    loader = DataLoader(
        images.dataset,
        images.batch_size,
        shuffle=True,
        collate_fn=images.collate_fn,
        generator=torch.Generator().manual_seed(runner.seed),
    )
    model = unwrapped(runner.model)
    training = model.training
    model.eval()
    try:
        yield [partial(_loss, model, batch) for batch in itertools.islice(loader, number)]
    finally:
        model.train(training)


def _loss(model: BaseModel, batch: Mapping[str, Any]) -> Tensor:
    data = model.data_preprocessor(batch, training=False)
    loss, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    return loss
