"""Models that timm builds: what a file says of one, its own weights, and its preprocessing."""

import inspect
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.data import resolve_data_config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gleam_mm.arguments import ArgumentError
from gleam_mm.checkpoint import CheckpointError, read_state_dict
from gleam_mm.messages import hint_at, shown
from gleam_mm.models.budget import Budget
from gleam_mm.models.own_classifier import outputs
from gleam_mm.shapes import NUMBER, POSITIVE, TEXT, Shape, list_of

LIBRARY = 'timm'

_NAME = re.compile(r'[a-z0-9_]+(\.[a-z0-9_]+)?')
_WORD = re.compile(r'[a-z0-9_]{0,30}')
_OPTIONS = {
    *('act_layer', 'class_token', 'depth', 'depths', 'drop_path_rate', 'drop_rate'),
    *('dynamic_img_pad', 'dynamic_img_size', 'embed_dim', 'fc_norm', 'global_pool', 'img_size'),
    *('in_chans', 'init_values', 'mlp_ratio', 'no_embed_class', 'norm_layer', 'num_classes'),
    *('num_heads', 'patch_size', 'pos_embed', 'pre_norm', 'proj_drop_rate', 'qk_norm', 'qkv_bias'),
    *('reg_tokens', 'window_size'),
}
"""Options of ``timm.create_model`` that a file may have: numbers and words, no file or address."""

_INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming')

_ABOVE = Shape('a number above 0', lambda value: NUMBER.fits(value) and value > 0)

_DATA_CONFIG = {
    'input_size': Shape(
        'three whole numbers: channels, height and width',
        lambda value: list_of(POSITIVE).fits(value) and len(value) == 3,
    ),
    'interpolation': Shape(f'one of {", ".join(_INTERPOLATIONS)}', _INTERPOLATIONS.__contains__),
    'mean': Shape('a number for each channel', lambda v: _is_for_channels(v, NUMBER)),
    'std': Shape(
        'a number above 0 for each channel', lambda value: _is_for_channels(value, _ABOVE)
    ),
    'crop_pct': Shape('a number above 0, at most 1', lambda v: _ABOVE.fits(v) and v <= 1),
    'crop_mode': TEXT,
}
"""What ``timm.data.resolve_data_config`` says of pictures; it drops any name that it lacks."""

_MOST_NUMBERS = 200_000_000  # of a model without weights, some times over

_PASSES = ('Identity', 'Dropout', 'DropPath', 'PatchDropout')
"""Modules that do nothing at evaluation; an option of training puts one in the place of another."""

_WEIGHT_FILES = ('model.safetensors', 'pytorch_model.bin')  # in a repository of the hub


def describe(model: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of a model, so that the same can be built again.

    Args:
        model: The model.
        options: The options of ``timm.create_model`` that it was built with, beside those that it
            tells itself: the number of classes, the size of images, how it pools and, as far as its
            class has that option, the heads of its attention.

    Raises:
        ValueError: It is no model of timm, or what timm builds of that is another one.
    """
    pretrained = getattr(model, 'pretrained_cfg', None) or {}
    if 'architecture' not in pretrained:
        raise ValueError(f'{type(model).__name__} is no model that timm.create_model has built')
    name = '.'.join(filter(None, (pretrained['architecture'], pretrained.get('tag'))))
    told = {**_told(model), **options}
    reason = None
    if 'num_heads' in told and 'num_heads' not in options:
        described = dict(library=LIBRARY, name=name, options=told)
        try:
            reason = _other(model, described)
        except CheckpointError as error:  # its builder sets them itself
            reason = str(error)
        if reason is None:
            return described
        told = {key: value for key, value in told.items() if key != 'num_heads'}
    described = dict(library=LIBRARY, name=name, options=told)
    if (reason := _other(model, described)) is not None:
        raise ValueError(reason)
    return described


def differences(model: nn.Module, described: Mapping[str, Any] | None) -> list[str]:
    """What of a model is other than a file says, without a trace in the shapes of its weights.

    Args:
        model: The model; of one that timm has not built, nothing is known.
        described: What :func:`describe` gave, out of a file that may say less.
    """
    pretrained = getattr(model, 'pretrained_cfg', None) or {}
    if described is None or 'architecture' not in pretrained:
        return []
    told, options = _told(model), described['options']
    keys = [
        key
        for key in ('global_pool', 'num_heads')
        if key in told and key in options and _as_list(told[key]) != _as_list(options[key])
    ]
    architecture = described['name'].partition('.')[0]
    try:  # names of models change from release to release, and options have several words
        again = _described(json.dumps(described))
    except CheckpointError:
        return []
    found = []
    if again.pretrained_cfg['architecture'] != pretrained['architecture']:
        found.append(f'the file is of {architecture}, and the model {pretrained["architecture"]}')
    if 'global_pool' in keys and again.global_pool != told['global_pool']:
        found.append(_otherwise('global_pool', options, told))
    if 'num_heads' in keys and _heads(again) != _heads(model):
        found.append(_otherwise('num_heads', options, told))
    if not found and (unlike := _unlike(model, again)) is not None:
        found.append('{} is {} here but {} in the model of the file'.format(*unlike))
    return found


def alike(described: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two files are of one model.

    Files of before the first release tell no heads, nor that images of other sizes are taken.
    """
    both = [dict(one['options']) for one in (described, other)]
    for key in ('num_heads', 'dynamic_img_size'):
        if any(key not in options for options in both):
            for options in both:
                options.pop(key, None)
    return {**described, 'options': both[0]} == {**other, 'options': both[1]}


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
    except (AssertionError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition('\n')[0]
        what = f'timm builds no {name} of its options' if weights is None else 'does not fit'
        raise CheckpointError(f'{weights or "model"}: {what}: {reason}') from error


def require_rgb(model: Any, described: Mapping[str, Any]) -> None:
    """Refuses a model for pictures that does not read the three channels that they have.

    Args:
        model: What :func:`build` gave.
        described: What it was built of.

    Raises:
        CheckpointError: It reads another number of channels.
    """
    channels = described['options'].get('in_chans', model.pretrained_cfg['input_size'][0])
    if channels != 3:
        raise CheckpointError(
            f'{described["name"]} reads in_chans={channels}, and pictures have 3 channels, RGB: '
            'build it, call gleam_mm.load(model, path) and give it tensors of your own'
        )


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
        ArgumentError: ``data_config`` has something else, or a value that is none for its key.
        ValueError: ``crop_mode`` is neither ``'center'`` nor ``'squash'``.
    """
    for key, value in data_config.items():
        if key not in _DATA_CONFIG:
            raise ArgumentError(
                f'data_config has no {key!r}{hint_at(key, _DATA_CONFIG)}; it has '
                f'{", ".join(_DATA_CONFIG)}'
            )
        if not _DATA_CONFIG[key].fits(_as_list(value)):
            raise ArgumentError(
                f'data_config has {key}={shown(value)}; it has to be {_DATA_CONFIG[key].what}'
            )
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


def require_size(model: nn.Module, data_config: Mapping[str, Any]) -> None:
    """Refuses pictures of a size that a model does not take.

    Args:
        model: A model of timm.
        data_config: As of :func:`preprocessing`.

    Raises:
        ArgumentError: ``input_size`` is of other images than the model is built for.
    """
    embedding: Any = getattr(model, 'patch_embed', None)
    if 'input_size' not in data_config or not getattr(embedding, 'strict_img_size', False):
        return
    given, size = data_config['input_size'], getattr(embedding, 'img_size', None)
    if size is not None and tuple(given[-2:]) != tuple(size):
        raise ArgumentError(
            f'data_config has input_size={shown(given)}, but the model takes images of '
            f'{size[0]} x {size[1]}: build it with another img_size, or dynamic_img_size=True'
        )


def _is_for_channels(value: Any, shape: Shape) -> bool:
    return list_of(shape).fits(value) and len(value) in (1, 3)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, int | float)


def _told(model: Any) -> dict[str, Any]:
    """The options of ``timm.create_model`` that a model tells itself."""
    told: dict[str, Any] = {'num_classes': outputs(model)}
    if isinstance(pool := getattr(model, 'global_pool', None), str):
        told['global_pool'] = pool
    if (size := getattr(getattr(model, 'patch_embed', None), 'img_size', None)) is not None:
        told['img_size'] = list(size)
    if getattr(model, 'dynamic_img_size', False) is True:  # which leaves no trace in the weights
        told['dynamic_img_size'] = True
    builders = (vars(base)['__init__'] for base in type(model).__mro__ if '__init__' in vars(base))
    signatures = (inspect.signature(builder).parameters for builder in builders)
    option = next((known['num_heads'] for known in signatures if 'num_heads' in known), None)
    if option is not None and (heads := _heads(model)):
        if isinstance(option.default, int):
            told['num_heads'] = next(iter(heads.values()))
        else:  # one for each stage
            stages: dict[str, int] = {}
            for name, number in heads.items():
                stages.setdefault(re.split(r'(?<=\d)\.', name)[0], number)
            told['num_heads'] = list(stages.values())
    return told


def _heads(model: nn.Module) -> dict[str, int]:
    """How many heads each attention of a model has, without those of a method."""
    numbers = ((name, getattr(part, 'num_heads', None)) for name, part in model.named_modules())
    return {
        name: number
        for name, number in numbers
        if isinstance(number, int) and not name.startswith('petl.')
    }


def _other(model: nn.Module, described: Mapping[str, Any]) -> str | None:
    """Why what timm builds of a description is another model than this one, if it is."""
    name, again = described['name'], _on_meta(described)
    builds = f'in what timm.create_model({shown(name)}) builds'
    theirs = again.state_dict()
    ours = {key: t for key, t in model.state_dict().items() if not key.startswith('petl.')}
    for key in sorted({*ours, *theirs}):
        shapes = [tuple(d[key].shape) if key in d else None for d in (ours, theirs)]
        if shapes[0] != shapes[1]:
            return f'{name}: {key} has the shape {shapes[0]} here but {shapes[1]} {builds}'
    heads = _heads(model), _heads(again)
    for key in heads[0]:
        if heads[0][key] != heads[1].get(key):
            numbers = f'{heads[0][key]} heads here but {heads[1].get(key)}'
            return f'{name}: {key} has {numbers} {builds}: num_heads is missing'
    if (unlike := _unlike(model, again)) is not None:
        return '{}: {} is {} here but {} {}'.format(name, *unlike, builds)
    return None


def _unlike(model: nn.Module, other: nn.Module) -> tuple[str, str, str] | None:
    """The first module that computes something else than that of another model: name and both."""
    theirs = dict(other.named_modules())
    for name, module in model.named_modules():
        pair = module, theirs.get(name, module)
        # Of what has weights in one of them alone, these tell.
        if not any(type(one).__name__ in _PASSES for one in pair):
            told = [_computation(one) for one in pair]
            if told[0] != told[1]:
                return name, told[0], told[1]
    return None


def _computation(module: nn.Module) -> str:
    """What a module computes at evaluation by its own options, beside its weights."""
    if isinstance(module, _BatchNorm):  # converted ones compute the same
        return f'a BatchNorm of eps={module.eps}'
    return f'{type(module).__name__}({module.extra_repr()})'


def _on_meta(described: Mapping[str, Any]) -> nn.Module:
    with torch.device('meta'):
        return build(described)


@lru_cache(maxsize=8)
def _described(text: str) -> Any:
    """The model that a description in JSON is of, without weights: once for many files of it."""
    return _on_meta(json.loads(text))


def _otherwise(key: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    return f'{key} is {theirs[key]!r} in the file but {ours[key]!r} in the model'


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
