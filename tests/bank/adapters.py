"""Adapter files of tiny models, as trainings write them, and what a single model gives."""

import sys
from pathlib import Path

import numpy as np
import torch

CONFORMANCE = Path(__file__).parents[1] / 'conformance'
sys.path.append(str(CONFORMANCE))  # the rows of the matrix of methods

from backbones import CONFIGS, NECKS, WIDTH, evaluating  # noqa: E402
from cases import ANY_SIZE, CASES, Case, make_images, randomize  # noqa: E402

from gleam_mm.checkpoint import FINGERPRINT, save_adapter  # noqa: E402
from gleam_mm.registry import MODELS, own_scope  # noqa: E402

__all__ = ['CASES', 'Case', 'build', 'make_images', 'pictures', 'write']

PREPROCESSOR = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)
PIPELINE = [
    dict(type='Resize', scale=[32, 32], backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]


def build(petl, kind='vit', classes=3, seed=0, preprocessor=PREPROCESSOR, head=None, **backbone):
    """A trained classifier: all that is trained is off its start."""
    head = head or dict(type='LinearClsHead', num_classes=classes)
    config = dict(
        type='PETLClassifier',
        backbone={**CONFIGS[kind], **ANY_SIZE[kind], **backbone},
        neck=NECKS[kind],
        head={**head, 'in_channels': WIDTH},
        petl=petl,
        data_preprocessor=preprocessor,
        allow_random_backbone=True,
        probe=False,
    )
    torch.manual_seed(seed)
    with own_scope():
        model = evaluating(MODELS.build(config))
    torch.manual_seed(seed + 1)
    randomize(model.petl)
    return model


def write(model, path, names=None, pipeline=PIPELINE, **changes):
    """Writes the adapter file of a model."""
    tensors = {key: value for key, value in model.state_dict().items() if key != FINGERPRINT}
    metadata = {
        **model.description,
        'backbone_fingerprint': model.backbone_fingerprint(),
        'pipeline': pipeline,
        'classes': names,
    }
    save_adapter(path, tensors, {**metadata, **changes})
    return path


def pictures(number, size=32, seed=0):
    """Pictures as arrays."""
    generator = np.random.default_rng(seed)
    return list(generator.integers(0, 256, (number, size, size, 3), dtype=np.uint8))
