"""A teacher: a trained model whose outputs another one learns to give."""

from pathlib import Path
from typing import Annotated, Any

import torch
from mmengine.config import Config
from torch import Tensor
from torch.nn import functional as F

from gleam_mm.arguments import Checked, NonNegative, Range
from gleam_mm.checkpoint import classes_of
from gleam_mm.models.building import load_model
from gleam_mm.registry import MODELS

Temperature = Annotated[float, Range(0, open=True)]


@MODELS.register_module()
class Teacher(Checked):
    r"""Distils a trained model into the one that is trained (Hinton et al., 2015).

    .. math::
        w_l L + w \, T^2 \, \mathrm{KL} \left(
        \mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T) \right)

    with L the loss of the student's head on the images that have labels, and t and s the logits of
    teacher and student. Images without labels take part in the second term alone. The student may
    have another backbone, so that an adapter moves from one backbone to another::

        model = dict(teacher=dict(checkpoint='vit-b/adapter.safetensors'), ...)

    The teacher sees the student's images, normalised as its own were and resized to its size. It is
    no part of the student: nothing of it is saved, copied with it or trained.

    Args:
        checkpoint: The teacher's adapter file, or a ``.pth`` checkpoint with ``config``.
        config: The config or recipe of the teacher; None takes what the adapter file says.
        temperature: The temperature T.
        weight: The weight w.
        label_weight: The weight :math:`w_l`; 0 ignores labels.

    Attributes:
        classes (tuple | None): The names of the teacher's classes.

    Raises:
        FileNotFoundError: The checkpoint, or the weights of its backbone, do not exist.
        CheckpointError: The checkpoint is damaged or does not fit.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        config: str | Path | Config | None = None,
        temperature: Temperature = 2.0,
        weight: NonNegative = 1.0,
        label_weight: NonNegative = 1.0,
    ) -> None:
        self.model = load_model(config, checkpoint).requires_grad_(False)
        self.temperature = temperature
        self.weight = weight
        self.label_weight = label_weight
        self.classes = classes_of(checkpoint)

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        """The same teacher: averaged copies of a student need no other."""
        return self

    @torch.no_grad()
    def logits(self, images: Tensor, preprocessor: Any) -> Tensor:
        """What the teacher says.

        Args:
            images: A student's images (B, C, H, W), normalised.
            preprocessor: The student's data preprocessor, which normalised them.
        """
        self.model.to(images.device)
        images = _normalized(_pixels(images, preprocessor), self.model.data_preprocessor)
        size = self.model.petl.layout.image_shape()[1:]
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode='bicubic', antialias=True)
        return self.model(images)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The second term: T^2 times the mean divergence of logits (B, K), weighted."""
        told = (teacher / self.temperature).log_softmax(-1)
        learnt = (student / self.temperature).log_softmax(-1)
        mean = F.kl_div(learnt, told, reduction='batchmean', log_target=True)
        return self.weight * self.temperature**2 * mean


def _pixels(images: Tensor, preprocessor: Any) -> Tensor:
    if not getattr(preprocessor, '_enable_normalize', False):
        return images
    return images * preprocessor.std.to(images.device) + preprocessor.mean.to(images.device)


def _normalized(images: Tensor, preprocessor: Any) -> Tensor:
    if not getattr(preprocessor, '_enable_normalize', False):
        return images
    return (images - preprocessor.mean) / preprocessor.std
