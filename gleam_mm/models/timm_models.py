"""Models that timm builds: what a file says of one, its own weights, and its preprocessing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.data import resolve_data_config
from torch import nn

from gleam_mm.checkpoint import CheckpointError, read_state_dict
from gleam_mm.messages import shown
from gleam_mm.models.budget import Budget
from gleam_mm.models.own_classifier import outputs

LIBRARY = 'timm'

_NAME = re.compile(r'[a-z0-9_]+(\.[a-z0-9_]+)?')
_WORD = re.compile(r'[a-z0-9_]{0,30}')
_OPTIONS = {
    *('class_token', 'depth', 'depths', 'drop_path_rate', 'drop_rate', 'dynamic_img_pad'),
    *('dynamic_img_size', 'embed_dim', 'fc_norm', 'global_pool', 'img_size', 'in_chans'),
    *('init_values', 'mlp_ratio', 'no_embed_class', 'num_classes', 'num_heads', 'patch_size'),
    *('pos_embed', 'pre_norm', 'proj_drop_rate', 'qk_norm', 'qkv_bias', 'reg_tokens'),
    'window_size',
}
"""Options of ``timm.create_model`` that a file may have: numbers and words, no file or address."""

_MOST_NUMBERS = 200_000_000  # of a model without weights, some times over

_WEIGHT_FILES = ('model.safetensors', 'pytorch_model.bin')  # in a repository of the hub


def describe(model: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of a model, so that the same can be built again.

    Args:
        model: The model.
        options: The options of ``timm.create_model`` that it was built with, beside those that it
            tells itself: the number of classes, the size of images and how it pools.

    Raises:
        ValueError: It is no model of timm, or what timm builds of that is another one.
    """
    pretrained = getattr(model, 'pretrained_cfg', None) or {}
    if 'architecture' not in pretrained:
        raise ValueError(f'{type(model).__name__} is no model that timm.create_model has built')
    name = '.'.join(filter(None, (pretrained['architecture'], pretrained.get('tag'))))
    told: dict[str, Any] = {'num_classes': outputs(model)}
    if isinstance(pool := getattr(model, 'global_pool', None), str):
        told['global_pool'] = pool
    if (size := getattr(getattr(model, 'patch_embed', None), 'img_size', None)) is not None:
        told['img_size'] = list(size)
    described = dict(library=LIBRARY, name=name, options={**told, **options})
    with torch.device('meta'):
        again = build(described).state_dict()
    ours = {key: t for key, t in model.state_dict().items() if not key.startswith('petl.')}
    for key in sorted({*ours, *again}):
        shapes = [tuple(d[key].shape) if key in d else None for d in (ours, again)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f'{name}: {key} has the shape {shapes[0]} here but {shapes[1]} in what '
                f'timm.create_model({shown(name)}) builds'
            )
    return described


def build(described: Mapping[str, Any], weights: str | Path | None = None) -> nn.Module:
    """Builds the model that a file describes.

    Args:
        described: What :func:`describe` gave, out of a file.
        weights: A file of weights as timm publishes them, which timm fits to the model.

    Raises:
        CheckpointError: The description is none, or the weights cannot be read or do not fit.
        FileNotFoundError: There is no such file of weights.
    """
    name, options = described['name'], described['options']
    known = described['library'] == LIBRARY and _NAME.fullmatch(name) and timm.is_model(name)
    if not known:
        raise CheckpointError(f'model.name={shown(name)} is no model of this release of timm')
    for key, value in options.items():
        if key not in _OPTIONS or not _is_plain(value):
            raise CheckpointError(f'model.options.{key}={shown(value)} is no option in a file')
    loading: dict[str, Any] = {}
    if weights is not None:
        overlay = dict(state_dict=read_state_dict(weights))
        loading = dict(pretrained=True, pretrained_cfg_overlay=overlay)
    size = Path(weights).stat().st_size if weights is not None else _MOST_NUMBERS
    try:
        with Budget.for_weights(size):
            return timm.create_model(name, **options, **loading)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition('\n')[0]
        what = f'timm builds no {name} of its options' if weights is None else 'does not fit'
        raise CheckpointError(f'{weights or "model"}: {what}: {reason}') from error


def cached_weights(described: Mapping[str, Any]) -> Path | None:
    """The published weights of a model, where timm has downloaded them before."""
    if (repository := hub_name(described['name'])) is None:
        return None
    for file in _WEIGHT_FILES:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_name(name: str) -> str | None:
    """The repository on the hub of Hugging Face that has a model's weights, if any does."""
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return known.hf_hub_id if known is not None and known.hf_hub_id else None


def preprocessing(model: nn.Module, data_config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``timm.data.create_transform`` does to pictures in evaluation, as configs say it.

    Args:
        model: A model of timm.
        data_config: What differs from what timm says of the model: some of ``input_size``,
            ``interpolation``, ``mean``, ``std``, ``crop_pct`` and ``crop_mode``.

    Returns:
        ``pipeline`` and ``data_preprocessor``.

    Raises:
        ValueError: ``crop_mode`` is neither ``'center'`` nor ``'squash'``.
    """
    size = getattr(getattr(model, 'patch_embed', None), 'img_size', None)
    own = {} if size is None else {'input_size': (3, *size)}
    told = resolve_data_config({**own, **data_config}, pretrained_cfg=model.pretrained_cfg)
    height, width = told['input_size'][-2:]
    crop = dict(type='CenterCrop', crop_size=[width, height])  # MMCV takes the width first
    how = dict(backend='pillow', interpolation=told['interpolation'])
    scale = [int(side / told['crop_pct']) for side in (width, height)]
    if told['crop_mode'] == 'squash':
        resize = dict(type='Resize', scale=scale, **how)
    elif told['crop_mode'] == 'center' and scale[0] == scale[1]:
        resize = dict(type='ResizeEdge', scale=scale[0], edge='short', **how)
    elif told['crop_mode'] == 'center':
        resize = dict(type='ResizeToCover', scale=scale, **how)
    else:
        raise ValueError(
            f"crop_mode={told['crop_mode']!r}: choose 'center' or 'squash' in data_config"
        )
    loader = dict(type='LoadImageFromFile', imdecode_backend='pillow')
    return {
        'pipeline': [loader, resize, crop, dict(type='PackInputs')],
        'data_preprocessor': dict(
            mean=[255 * value for value in told['mean']],
            std=[255 * value for value in told['std']],
            to_rgb=True,
        ),
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, int | float)
