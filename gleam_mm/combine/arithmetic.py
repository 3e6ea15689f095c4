"""Sums of tensors: weighted, TIES and DARE, as their papers have them.

They are added up in float32 at least, and come in the widest type of what they are made of.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum."""
    tensors, kept = _widened(tensors)
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add_(tensor, alpha=weight)
    return total.to(kept)


def trim(tensor: Tensor, density: float) -> Tensor:
    """A tensor with only the share ``density`` of its numbers that are largest, others zero."""
    kept = int(density * tensor.numel())
    if not kept:
        return torch.zeros_like(tensor)
    flat = tensor.flatten()
    largest = flat.abs().topk(kept).indices
    return torch.zeros_like(flat).index_copy_(0, largest, flat[largest]).view_as(tensor)


def ties(tasks: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """TIES: trim, elect a sign for each number, and average those that agree with it.

    Yadav et al., NeurIPS 2023, section 4.

    Args:
        tasks: What trainings changed, of one shape.
        weights: A factor for each, applied after the election.
        density: The share of each that is kept.
    """
    tasks, kept = _widened(tasks)
    trimmed = torch.stack([trim(task, density) for task in tasks])
    sign = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agrees = trimmed.sign() == sign
    scaled = trimmed * torch.tensor(weights).view(-1, *[1] * tasks[0].ndim)
    return ((scaled * agrees).sum(0) / agrees.sum(0).clamp_min(1)).to(kept)


def dare(
    tasks: Sequence[Tensor], weights: Sequence[float], density: float, generator: torch.Generator
) -> Tensor:
    """DARE: drop numbers at random, scale up the others, and add.

    Yu et al., ICML 2024, equations 1 to 3.

    Args:
        tasks: What trainings changed, of one shape.
        weights: A factor for each.
        density: The probability that a number is kept.
        generator: Draws what is dropped.
    """
    tasks, kept = _widened(tasks)
    thinned = [
        task * torch.bernoulli(torch.full_like(task, density), generator=generator) / density
        for task in tasks
    ]
    return weighted(thinned, weights).to(kept)


def _widened(tensors: Sequence[Tensor]) -> tuple[list[Tensor], torch.dtype]:
    """The tensors in the type to compute in, and the type of what comes out."""
    kept = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [tensor.to(torch.promote_types(kept, torch.float32)) for tensor in tensors], kept
