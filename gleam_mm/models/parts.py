"""Parts of a model as a file describes them: what of it may be built.

Built are components that are registered already, of a closed list of kinds, with arguments that
their classes have; nothing is imported by name, and nothing else is read than the weights of the
backbone.
"""

import inspect
import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mmengine.model import BaseDataPreprocessor, PretrainedInit
from mmengine.registry import Registry
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import nn

from gleam_mm.checkpoint import SCHEME, CheckpointError
from gleam_mm.messages import shown
from gleam_mm.petl import PETLMethod
from gleam_mm.registry import BATCH_AUGMENTS, MODELS, WEIGHT_INITIALIZERS, registered


class _UnregisteredError(CheckpointError):
    """A type is in no registry, or not yet."""


KINDS: dict[str, type] = {
    'method': PETLMethod,
    'backbone': BaseBackbone,
    'neck': nn.Module,
    'head': nn.Module,
    'data_preprocessor': BaseDataPreprocessor,
}
"""What the parts of a model have to be."""

_REGISTRIES: dict[str, Registry] = {
    'init_cfg': WEIGHT_INITIALIZERS,
    'batch_augments': BATCH_AUGMENTS,
}
"""Where the types below a key are registered; those below any other are in MODELS."""

_FRAMEWORKS = {'mmcv', 'mmengine', 'mmpretrain', 'peft', 'timm', 'torch', 'transformers'}
_PARTS_OF_FRAMEWORKS = (
    'mmcv.cnn.bricks.',
    'mmengine.model.base_model.data_preprocessor',
    'mmengine.model.weight_init',
    *(f'mmpretrain.models.{part}.' for part in ('backbones', 'heads', 'losses', 'necks', 'utils')),
    'torch.nn.modules.',
)
"""The modules of the frameworks that have parts of classifiers. Others load models by name."""

_TEXT = re.compile(r'[\w .,+*-]{0,200}')  # no path, no address, no `hf-hub:` of timm
_OPENS_FILES = re.compile(r'checkpoint|subnet|pretrained.*|.*_(file|url|dir|core)|(?!drop_).*_path')
"""Arguments that take the name of a file, an address or a Python module."""

_LARGEST, _LARGEST_PADDING = 1_000_000, 1024
"""The largest number in a file; no width, depth or count of a model is more."""

_NO_SIZE = re.compile(r'(.*_)?(alpha|prng_key|seed)')
"""Arguments whose numbers make nothing larger, whatever they are of."""

_WEIGHTS = ('.bin', '.pt', '.pth', '.safetensors')


def checked_part(part: str, config: Any) -> Any:
    """The config of a part of a model, as it may be built: with bare names of types.

    Args:
        part: Its name, one of :data:`~gleam_mm.checkpoint.DESCRIBED`.
        config: What JSON gave.

    Raises:
        CheckpointError: It is not built from a file. The message names the key.
    """
    if isinstance(config, list):  # several methods
        return [checked_part(part, item) for item in config]
    if config is None:
        return None
    if part == 'data_preprocessor':
        config = {'type': 'ClsDataPreprocessor', **config}
    weights: Any = config.get('init_cfg') if part == 'backbone' else None
    if not is_pretrained(weights):
        return _checked(part, config, MODELS, KINDS[part])
    _check_weights(weights)
    rest = {key: value for key, value in config.items() if key != 'init_cfg'}
    checked = _checked(part, rest, MODELS, KINDS[part])
    return {**checked, 'init_cfg': {**weights, 'type': 'Pretrained'}}


def check_changes(part: str, changes: Any) -> None:
    """Checks changes to the config of a part, such as a sweep's: they need not have its type.

    Args:
        part: Its name, one of :data:`~gleam_mm.checkpoint.DESCRIBED`.
        changes: What JSON gave: nested, or a plain value in place of the part.

    Raises:
        CheckpointError: They name what is not built from a file. The message names the key.
    """
    whole = isinstance(changes, dict) and 'type' in changes
    _checked(part, changes, MODELS, KINDS[part] if whole else object)


def require_told(method: Any) -> None:
    """Refuses a method that could be saved and not be loaded again, before it is trained.

    Args:
        method: Its config, as JSON gives it.

    Raises:
        ValueError: No file may have that. The message names the key.
    """
    try:
        checked_part('method', method)
    except _UnregisteredError:
        return  # one of the user's own, which may be registered where a file is loaded
    except CheckpointError as error:
        raise ValueError(f'no file of this method could be loaded again: {error}') from error


def is_pretrained(config: Any) -> bool:
    """Whether an ``init_cfg`` reads weights from a file."""
    if not isinstance(config, dict) or not isinstance(config.get('type'), str):
        return False
    return registered(WEIGHT_INITIALIZERS, config['type']) is PretrainedInit


def _check_weights(config: Mapping[str, Any]) -> None:
    """Checks the one place where metadata name a file."""
    where, checkpoint = 'backbone.init_cfg.checkpoint', config.get('checkpoint')
    others = sorted(config.keys() - {'type', 'checkpoint', 'prefix'})
    if others or not isinstance(config.get('prefix') or '', str):
        raise CheckpointError(f'backbone.init_cfg has more than checkpoint and prefix: {others}')
    if not isinstance(checkpoint, str):
        raise CheckpointError(f'{where} is no path')
    local = checkpoint.removeprefix(SCHEME)
    if '://' in local or local.startswith(('//', '\\\\')):
        raise CheckpointError(f'{where} is an address on a network: {shown(checkpoint)}')
    if PurePath(local).suffix not in _WEIGHTS:
        raise CheckpointError(f'{where} is no file of weights: {shown(checkpoint)}')


def _checked(
    where: str,
    value: Any,
    registry: Registry,
    wanted: type = object,
    largest: float = _LARGEST,
) -> Any:
    """A value with everything below it, as it may be built.

    Args:
        where: Its key, for messages.
        value: What JSON gave.
        registry: Where its type has to be registered, if it is a config.
        wanted: What its type has to derive from.
        largest: The largest whole number that it may be.
    """
    if isinstance(value, list):
        items = enumerate(value)
        return [_checked(f'{where}.{i}', item, registry, largest=largest) for i, item in items]
    if isinstance(value, dict):
        free = getattr(registered(registry, str(value.get('type'))), 'counts_weights', ())
        config = {
            key: _checked(
                f'{where}.{key}',
                item,
                _REGISTRIES.get(key, registry),
                largest=math.inf if key in free else _largest(key),
            )
            for key, item in value.items()
            if key != 'type'
        }
        for key, item in config.items():
            if key == '_scope_' or (isinstance(item, str) and _OPENS_FILES.fullmatch(key)):
                raise CheckpointError(f'{where}.{key}={shown(item)} would open another file')
        if 'type' in value or wanted is not object:
            component = _component(f'{where}.type', value.get('type'), registry, wanted)
            _check_arguments(where, component, config)
            config['type'] = value['type'].rpartition('.')[2]
        return config
    if isinstance(value, int) and abs(value) > largest:
        raise CheckpointError(f'{where} is {value:.3g}, and no model has that much of anything')
    if isinstance(value, str) and not _TEXT.fullmatch(value):
        raise CheckpointError(f'{where}={shown(value)} is neither a word nor a number')
    return value


def _largest(key: str) -> float:
    """The largest whole number that an argument may be."""
    if _NO_SIZE.fullmatch(key):
        return math.inf
    return _LARGEST_PADDING if key == 'pad_size_divisor' else _LARGEST


def _component(where: str, name: Any, registry: Registry, wanted: type) -> type:
    component = registered(registry, name) if isinstance(name, str) else None
    if not inspect.isclass(component):
        raise _UnregisteredError(
            f'{where}={shown(name)} is no registered {registry.name}; a component of your own has '
            'to be imported first'
        )
    module = component.__module__
    if module.partition('.')[0] in _FRAMEWORKS and not module.startswith(_PARTS_OF_FRAMEWORKS):
        raise CheckpointError(f'{where}={shown(name)} is no part of a classifier')
    if not issubclass(component, wanted):
        raise CheckpointError(f'{where}={shown(name)} is no {wanted.__name__}')
    if component is PretrainedInit:
        raise CheckpointError(f'{where}={shown(name)} would open another file')
    return component


def _check_arguments(where: str, component: type, config: Mapping[str, Any]) -> None:
    """Refuses arguments that a class does not have, before anything is called."""
    parameters = inspect.signature(component).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in config:
        if not takes_any and key not in parameters:
            raise CheckpointError(f'{where}.{key}: {component.__name__} has no such argument')
