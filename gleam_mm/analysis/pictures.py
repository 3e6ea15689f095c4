"""The few images that maps are drawn of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor
from torch.utils.data import Dataset

from gleam_mm.analysis.subjects import (
    AnalysisError,
    Subject,
    build_dataset,
    choose,
    class_names,
    output_names,
)

_DEFAULT = 4


@dataclass
class Pictures:
    """Images for one model.

    Attributes:
        names: Their numbers in the split, or their paths.
        labels: Their classes; None where a file has none.
        classes: Names of the classes that the labels are of.
        outputs: Names of the classes that the model tells, which may be others.
        inputs: The preprocessed images, of shape (B, 3, H, W), on the model's device.
        shown: The same as RGB from 0 to 255, of shape (B, H, W, 3).
    """

    names: list[str]
    labels: list[int | None]
    classes: list[str]
    outputs: list[str]
    inputs: Tensor
    shown: np.ndarray

    def describe(self, index: int, logits: Tensor) -> dict[str, Any]:
        """What the JSON says of an image and of its prediction."""
        probabilities = logits[index].float().softmax(-1)
        predicted = int(probabilities.argmax())
        label = self.labels[index]
        return {
            'image': self.names[index],
            'label': None if label is None else self.classes[label],
            'predicted': self.outputs[predicted],
            'predicted_index': predicted,
            'probability': probabilities[predicted].item(),
        }


def load_pictures(subject: Subject, split: str, chosen: Sequence[str] | None) -> Pictures:
    """Loads images for a model.

    Args:
        subject: The model.
        split: The split that numbers count in.
        chosen: Numbers of images in the split, and paths of files, which go through the pipeline
            of the split. None for a few of the split.

    Raises:
        FileNotFoundError: There is no such file.
        AnalysisError: A number is out of range, or the dataset reads no files.
    """
    dataset = build_dataset(subject.cfg, split)
    if chosen is None:
        chosen = list(map(str, choose(len(dataset), _DEFAULT)))
    data = subject.model.data_preprocessor(
        pseudo_collate([_load(dataset, name, split) for name in chosen]), training=False
    )
    inputs = data['inputs']
    return Pictures(
        names=list(chosen),
        labels=[
            int(sample.gt_label) if 'gt_label' in sample else None
            for sample in data['data_samples']
        ],
        classes=class_names(dataset, subject.cfg.model.head.num_classes),
        outputs=output_names(subject, dataset),
        inputs=inputs,
        shown=_shown(subject, inputs),
    )


def _load(dataset: Dataset, name: str, split: str) -> dict:
    if name.isdigit():
        if int(name) >= len(dataset):
            raise AnalysisError(
                f'--images {name}: the split {split!r} has {len(dataset)} images, from 0 on'
            )
        return dataset[int(name)]
    if not Path(name).is_file():
        raise FileNotFoundError(f'--images {name}: no such file, and no number of an image')
    first = dataset.pipeline.transforms[0]
    if type(first).__name__ != 'LoadImageFromFile':
        raise AnalysisError(
            f'--images {name}: {type(dataset).__name__} has its images in memory and reads no '
            f'files; give numbers of images in the split {split!r}'
        )
    return dataset.pipeline(dict(img_path=name))


def _shown(subject: Subject, inputs: Tensor) -> np.ndarray:
    preprocessor = subject.model.data_preprocessor
    images = inputs.detach().float().cpu()
    if getattr(preprocessor, '_enable_normalize', False):
        images = images * preprocessor.std.cpu() + preprocessor.mean.cpu()
    return images.clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()
