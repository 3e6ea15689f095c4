"""A short training before the training, after which everything is where it was."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from gleam_mm.petl.base import LossOfBatch


@contextmanager
def rehearsed(
    parameters: Sequence[Tensor], batches: Iterable[LossOfBatch], steps: int, lr: float
) -> Iterator[None]:
    """Within it, parameters are where Adam leads them; behind it they are rewound.

    The head and whatever else is trained stay where they are.

    Args:
        parameters: Leaves that require gradients.
        batches: The batches, which are taken in turn.
        steps: Number of steps.
        lr: Learning rate.
    """
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.Adam(parameters, lr)
    try:
        for loss_of_batch in itertools.islice(itertools.cycle(batches), steps):
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = loss_of_batch()
            gradients = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None
