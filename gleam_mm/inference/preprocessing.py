"""What was done to pictures before the model saw them: said in an adapter file, and done again.

A file's transforms are of a closed list, with arguments that are numbers and words. Nothing else is
built from it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gleam_mm.checkpoint import CheckpointError
from gleam_mm.config.datasets import pipeline_in
from gleam_mm.config.image_size import image_size
from gleam_mm.inference.resizing import ResizeToCover, require_moderate
from gleam_mm.messages import shown
from gleam_mm.registry import TRANSFORMS, scope_of

LOADER = 'LoadImageFromFile'

_SIZES = {'CenterCrop': 'crop_size', 'Resize': 'scale'}
"""The transforms after which all pictures have one size, and the argument that says it."""

_ARGUMENTS: dict[str, set[str]] = {
    LOADER: {'imdecode_backend', 'color_type', 'to_float32'},
    'CenterCrop': {'crop_size', 'auto_pad', 'pad_cfg', 'clip_object_border'},
    'Pad': {'size', 'size_divisor', 'pad_to_square', 'pad_val', 'padding_mode'},
    'PackInputs': {'input_key', 'algorithm_keys', 'meta_keys'},
    'Resize': {'scale', 'keep_ratio', 'backend', 'interpolation', 'clip_object_border'},
    'ResizeEdge': {'scale', 'edge', 'backend', 'interpolation'},
    ResizeToCover.__name__: {'scale', 'backend', 'interpolation'},
}
"""The transforms that are built from a file, and the arguments that they may have."""

_LARGEST = 16_384
"""The most pixels a side that a file may ask for."""

_WORD = re.compile(r'[\w+-]{0,40}')


def of_config(cfg: Config) -> list[dict[str, Any]] | None:
    """The pipeline of a config's test data, or else of its validation data.

    Where nothing in it makes pictures of one size, as where the images of a dataset are in memory
    already, the size of the backbone is added.

    Args:
        cfg: A whole config.

    Returns:
        Configs of transforms; None where the config does not say them.
    """
    for key in ('test_dataloader', 'val_dataloader'):
        pipeline = _pipeline((cfg.get(key) or {}).get('dataset'))
        if pipeline is None:
            continue
        # Of several tasks, only what packs their labels is another one.
        steps = [
            dict(type='PackInputs') if _name(step) == 'PackMultiTaskInputs' else dict(step)
            for step in pipeline
        ]
        if not any(_name(step) in _SIZES for step in steps):
            height, width = image_size(cfg.model.backbone)
            resize = resize_to(height, width)
            loads = bool(steps) and _name(steps[0]) == LOADER
            steps.insert(1 if loads else 0, resize)
        return steps
    return None


def resize_to(height: int, width: int, interpolation: str = 'bicubic') -> dict[str, Any]:
    """A transform that gives pictures a size, whatever their shape."""
    return dict(type='Resize', scale=(width, height), backend='pillow', interpolation=interpolation)


def of_adapter(
    metadata: Mapping[str, Any], adapter: str | Path, cfg: Config | None = None
) -> 'Pipeline':
    """The transforms of an adapter's pictures.

    Args:
        metadata: Those of the adapter.
        adapter: Its file, for messages.
        cfg: The config of the training, which wins.

    Raises:
        CheckpointError: Neither says them, or they are not built from a file.
    """
    if cfg is not None and (steps := of_config(cfg)) is not None:
        return Pipeline(steps, cfg)
    if metadata.get('pipeline') is None:
        raise CheckpointError(
            f'{adapter}: does not say how its pictures were prepared; give the config of its '
            'training as well'
        )
    try:
        return build(metadata['pipeline'])
    except CheckpointError as error:
        raise CheckpointError(
            f'{adapter}: {error}; give the config of its training as well'
        ) from error


def build(pipeline: Any) -> 'Pipeline':
    """Builds the transforms that an adapter file names.

    Args:
        pipeline: What JSON gave.

    Raises:
        CheckpointError: One of them is not built from a file. The message names the key.
    """
    return Pipeline([_checked(f'pipeline.{i}', step) for i, step in enumerate(pipeline)])


class Pipeline:
    """Transforms for pictures in files and in memory.

    Args:
        steps: Configs of transforms, which may begin with loading a file.
        scope: A config, whose default scope has the transforms.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]], scope: Config | None = None) -> None:
        self.loads = bool(steps) and _name(steps[0]) == LOADER
        with scope_of(scope or {}):
            built = [TRANSFORMS.build(dict(step)) for step in steps]
        self._loader = built[0] if self.loads else None
        self._rest = built[1:] if self.loads else built

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Prepares a picture.

        Args:
            results: With ``img_path``, which is loaded; or with ``img``.

        Raises:
            UnreadableImageError: The picture cannot be read, or is too thin to be resized.
        """
        if 'img' not in results:
            results = self._loader(results)
        for step in self._rest:
            require_moderate(step, results)
            results = step(results)
        return results


def _pipeline(dataset: Any) -> Sequence[Mapping[str, Any]] | None:
    """The pipeline of a dataset's config, or of the first one within that says one."""
    pipeline = pipeline_in(dataset)
    return pipeline if all(isinstance(step, Mapping) for step in pipeline or ()) else None


def _name(step: Mapping[str, Any]) -> str:
    name = step.get('type')
    return (name if isinstance(name, str) else name.__name__).rpartition('.')[2]


def _checked(where: str, step: Mapping[str, Any]) -> dict[str, Any]:
    name = _name(step)
    if name not in _ARGUMENTS:
        raise CheckpointError(
            f'{where}.type={shown(step["type"])} is none of the transforms that are built from a '
            f'file ({", ".join(_ARGUMENTS)})'
        )
    options = {key: value for key, value in step.items() if key not in ('type', '_scope_')}
    for key, value in options.items():
        if key not in _ARGUMENTS[name] or not _is_plain(value):
            raise CheckpointError(f'{where}.{key}={shown(value)} is no option of {name} in a file')
    options = {
        key: tuple(value) if isinstance(value, list) and key in ('scale', 'crop_size') else value
        for key, value in options.items()
    }
    return dict(type=name, **options)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or abs(value) <= _LARGEST
