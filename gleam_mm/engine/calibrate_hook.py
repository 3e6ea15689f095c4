"""A look at training data before the first step, for the methods that ask for one."""

import itertools
from collections.abc import Mapping
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
from gleam_mm.petl import LossOfBatch, PETLMethod, overrides
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
        members = [member for member in method.members() if overrides(member, 'calibrate')]
        if not members:
            return
        if dist.is_main_process():
            self._calibrate(runner, model, members)
        for tensor in (*method.parameters(), *method.buffers()):
            dist.broadcast(tensor.data)

    def _calibrate(self, runner: Runner, model: BaseModel, members: list[PETLMethod]) -> None:
        training = model.training
        model.eval()  # no noise of the model's own in what is measured
        batches = batches_of(runner, self.num_batches)
        for member in members:
            member.calibrate(batches)
        model.train(training)
        model.zero_grad(set_to_none=True)


def batches_of(runner: Runner, number: int) -> list[LossOfBatch]:
    """What computes the loss of each of a few batches, drawn by the run's seed alone."""
    images = runner.train_dataloader
    loader = DataLoader(
        images.dataset,
        images.batch_size,
        shuffle=True,
        collate_fn=images.collate_fn,
        generator=torch.Generator().manual_seed(runner.seed),
    )
    model = unwrapped(runner.model)
    return [partial(_loss, model, batch) for batch in itertools.islice(loader, number)]


def _loss(model: BaseModel, batch: Mapping[str, Any]) -> Tensor:
    data = model.data_preprocessor(batch, training=False)
    loss, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    return loss
