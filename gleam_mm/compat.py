"""Patches that a mixed set of wheels needs."""

import torch

_LIBRARIES = []


def apply() -> None:
    """Applies every patch that this set of wheels needs."""
    if not hasattr(torch.ops.torchvision, 'nms'):
        library = torch.library.Library('torchvision', 'DEF')
        library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _LIBRARIES.append(library)
