"""SparseAdapter: a method that is pruned before the first step, whichever it is."""

from collections.abc import Iterable
from typing import Annotated

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from gleam_mm.arguments import Checked, Positive, Range
from gleam_mm.engine.calibrate_hook import first_batches
from gleam_mm.engine.dist import unwrapped
from gleam_mm.petl import LossOfBatch, PETLMethod
from gleam_mm.registry import HOOKS

_MASKS = 'sparse_masks'  # the key in a checkpoint


@HOOKS.register_module()
class SparseAdapterHook(Checked, Hook):
    r"""Prunes the parameters of the method at its start (SparseAdapter, He et al., EMNLP 2022).

    By SNIP's score, :math:`|\theta \, \partial L / \partial \theta|` summed over a few batches
    of the training, the largest stay, over all parameters of the method together, and the others
    are zero from then on. The paper's "Large-Sparse" gives a method two to four times its rank and
    prunes as much.

    A tensor that starts at zero, as the second matrix of a bottleneck does, has no such score, and
    leaves the first one without a gradient. While the scores are taken, such tensors are drawn from
    a narrow normal distribution, as the paper's adapters start; then they are zero again. Where
    every path has one of them, as in an adapter, all scores grow in proportion to its width, so
    that the choice does not depend on it.

    What only a training uses, as the noise of GLEAM's gate, has no score in the passes of an
    evaluation, which draw nothing at random. It stays whole.

    Parameters that the method trains in the backbone, as BitFit's, are left alone, and a method
    that has no others is refused. A factor, as SSF's, is a parameter like any other: pruned, it
    puts out what it multiplies.

    Args:
        sparsity: Share of the parameters that go.
        num_batches: How many batches are looked at.
        spread: Standard deviation of what stands for zeros.

    Raises:
        ArgumentError: An argument is of another type, or ``sparsity`` no share.
        ValueError: When the training begins, the method has no parameters of its own.
    """

    priority = 'LOW'  # behind the CalibrateHook, which may choose where parameters stand

    def __init__(
        self,
        sparsity: Annotated[float, Range(0, 1, open=True)] = 0.8,
        num_batches: Positive = 8,
        spread: Annotated[float, Range(0, open=True)] = 1e-2,
    ) -> None:
        self.sparsity = sparsity
        self.num_batches = num_batches
        self.spread = spread
        self._masks: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Chooses what stays, unless the training goes on from a checkpoint that knows."""
        method = self._method(runner)
        parameters = dict(method.own_parameters())
        if not self._masks:
            masks = {name: torch.ones_like(p, dtype=torch.uint8) for name, p in parameters.items()}
            if dist.is_main_process():
                with first_batches(runner, self.num_batches) as batches:
                    scores = snip(list(parameters.values()), batches, self.spread)
                kept = largest(scores, 1 - self.sparsity)
                masks = dict(zip(parameters, kept, strict=True))
            for mask in masks.values():
                dist.broadcast(mask)
            self._masks = masks
        self._apply(method)

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        """Keeps at zero what was pruned."""
        self._apply(self._method(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Saves what stays."""
        checkpoint[_MASKS] = self._masks

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes what stays from a checkpoint."""
        self._masks = checkpoint.pop(_MASKS, {}) if runner._resume else {}

    def _method(self, runner: Runner) -> PETLMethod:
        method = getattr(unwrapped(runner.model), 'petl', None)
        if not isinstance(method, PETLMethod) or not any(True for _ in method.own_parameters()):
            raise ValueError(
                'SparseAdapterHook: the model has no PETL method with parameters of its own to '
                'prune; leave the hook out of custom_hooks'
            )
        return method

    @torch.no_grad()
    def _apply(self, method: PETLMethod) -> None:
        for name, parameter in method.own_parameters():
            parameter.mul_(self._masks[name].to(parameter.device))


def snip(
    parameters: list[nn.Parameter], batches: Iterable[LossOfBatch], spread: float
) -> list[Tensor]:
    """SNIP's scores, tensor by tensor: infinite ones of what the losses do not depend on.

    Tensors of zeros are scored as if they were noise.
    """
    generator = torch.Generator().manual_seed(0)
    before = [parameter.detach().clone() for parameter in parameters]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            if not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(spread * noise)
    try:
        for loss_of_batch in batches:
            with torch.enable_grad():
                loss = loss_of_batch()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for score, parameter, gradient in zip(total, parameters, gradients, strict=True):
                score += torch.inf if gradient is None else (parameter.detach() * gradient).abs()
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
    return total


def largest(scores: list[Tensor], share: float) -> list[Tensor]:
    """Ones at the largest scores of all tensors together, that share of them, and zeros else."""
    flat = torch.cat([score.flatten() for score in scores])
    chosen = torch.zeros_like(flat, dtype=torch.uint8)
    chosen[flat.topk(max(1, round(share * len(flat)))).indices] = 1
    parts = chosen.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]
