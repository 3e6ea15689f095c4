"""A linear probe in closed form: ridge regression on the frozen features of a backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from gleam_mm.models import PETLClassifier

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)


@torch.inference_mode()
def features(model: PETLClassifier, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """What the head reads of all images.

    Returns:
        Features of shape (N, d) in double precision, and labels of shape (N,).
    """
    read: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in loader:
        data = model.data_preprocessor(batch)
        read.append(model.extract_feat(data['inputs'])[-1])
        labels += [sample.gt_label for sample in data['data_samples']]
    return torch.cat(read).double(), torch.cat(labels)


def accuracies(
    train: tuple[Tensor, Tensor], classes: int, judged: Sequence[tuple[Tensor, Tensor]]
) -> list[list[float]]:
    """Probes the features of a training split, standardised, with targets of zero and one.

    Args:
        train: Features and labels, as of :func:`features`.
        classes: Number of classes.
        judged: Features and labels of other splits.

    Returns:
        For each of :data:`PENALTIES` the accuracy on each of the other splits, in %.
    """
    x, labels = train
    mean, std = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / std
    targets = F.one_hot(labels, classes).to(x.dtype)
    offset = targets.mean(0)
    covariance, right = x.T @ x, x.T @ (targets - offset)
    identity = torch.eye(len(covariance), dtype=x.dtype)
    found = []
    for penalty in PENALTIES:
        weight = torch.linalg.solve(covariance + penalty * identity, right)
        found.append(
            [100 * _hits((other - mean) / std @ weight + offset, truth) for other, truth in judged]
        )
    return found


def _hits(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()
