"""Adapter files of classifiers, whatever has trained them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gleam_mm.checkpoint import FINGERPRINT, save_adapter
from gleam_mm.inference import preprocessing
from gleam_mm.models import PETLClassifier
from gleam_mm.models.description import versions
from gleam_mm.petl.bits import packed_matrices


def metadata_of(model: PETLClassifier, cfg: Config, classes: Any) -> dict[str, Any]:
    """What an adapter file says about itself, but for metrics.

    Args:
        model: The classifier.
        cfg: The whole config, which says how pictures are prepared.
        classes: The names of the classes, in a sequence; anything else is taken for none.
    """
    packed = packed_matrices(model)
    return {
        **model.description,
        **({'packed': packed} if packed else {}),
        'classes': list(classes) if isinstance(classes, Sequence) else None,
        'backbone_fingerprint': model.backbone_fingerprint(),
        'pipeline': preprocessing.of_config(cfg),
        'versions': versions(),
    }


def save_classifier(
    model: PETLClassifier, path: str | Path, cfg: Config, classes: Sequence[str] | None = None
) -> None:
    """Saves what was trained of a classifier, as a training by ``tools/train.py`` does.

    Args:
        model: The classifier.
        path: The ``.safetensors`` file; replaced if it exists.
        cfg: The config that it was built from.
        classes: The names of the classes.

    Raises:
        RuntimeError: The method is merged.
    """
    tensors = {name: t for name, t in model.state_dict().items() if name != FINGERPRINT}
    save_adapter(path, tensors, metadata_of(model, cfg, classes))
