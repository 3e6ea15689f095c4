"""Models from configs and files: the one way in for everything that is no training.

A config is the user's own program, and may name anything. What a *file* says is built of components
that are registered already, of a closed list of kinds, with arguments that their classes have;
nothing is imported by name, and nothing else is read than the weights of the backbone. A component
of the user's own package takes part once the user's config or program has imported it.
"""

import inspect
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path, PurePath
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, PretrainedInit
from mmengine.registry import Registry
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from gleam_mm.checkpoint import (
    SCHEME,
    CheckpointError,
    load_from_local,
    read_adapter,
    resolve_path,
)
from gleam_mm.config import recipes
from gleam_mm.models.budget import Budget
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.petl import PETLMethod
from gleam_mm.registry import BATCH_AUGMENTS, MODELS, WEIGHT_INITIALIZERS, registered, scope_of

_KINDS: dict[str, type] = {
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

_TEXT = re.compile(r'[\w .,+-]{0,200}')  # no path, no address, no `hf-hub:` of timm
_OPENS_FILES = re.compile(r'checkpoint|subnet|pretrained.*|.*_(file|url|dir|core)|(?!drop_).*_path')
"""Arguments that take the name of a file, an address or a Python module."""

_ORIGIN = 'described_by'
"""The key of a config with the file that it comes from."""

_LARGEST, _LARGEST_PADDING = 1_000_000, 1024
"""The largest number in a file; no width, depth or count of a model is more."""

_WEIGHTS = ('.bin', '.pt', '.pth', '.safetensors')


def load_model(
    config: str | Path | Config | None = None,
    checkpoint: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> PETLClassifier:
    """Builds a model and loads what was trained of it.

    Args:
        config: A config, its file or the name of a recipe. None takes what the metadata of an
            adapter file say, of which only registered components are built.
        checkpoint: An adapter file or a ``.pth`` checkpoint. None leaves the method at its start.
        options: Overrides of the config, such as ``{'model.petl.rank': 8}``.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: The checkpoint, or the weights of the backbone, do not exist.
        CheckpointError: The checkpoint is damaged, does not fit the config, or describes what is
            not built from a file.
        ValueError: The config has no :class:`~gleam_mm.models.PETLClassifier`, or neither config
            nor checkpoint is given.
    """
    if config is not None:
        cfg = config if isinstance(config, Config) else recipes.load(config)
    elif checkpoint is not None:
        cfg = config_of(checkpoint)
    else:
        raise ValueError('give a config, an adapter file, or both')
    if options:
        cfg = cfg.copy()
        cfg.merge_from_dict(dict(options))
    if checkpoint is None:
        return build_model(cfg)
    tensors = read_trained(checkpoint)
    model = build_model(cfg, tensors)
    load_trained(model, tensors, checkpoint)
    return model


def read_trained(checkpoint: str | Path) -> dict[str, Tensor]:
    """Reads the state dict of a classifier from an adapter file or a ``.pth`` checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or no checkpoint of a training.
    """
    content = load_from_local(str(checkpoint))
    if 'state_dict' not in content:
        raise CheckpointError(
            f'{checkpoint}: no checkpoint of a training, for it has no state_dict'
        )
    return dict(content['state_dict'])


def build_model(cfg: Config, tensors: Mapping[str, Tensor] | None = None) -> PETLClassifier:
    """Builds the classifier of a config, with the method at its start and in evaluation mode.

    Args:
        cfg: The config; left as it is.
        tensors: A state dict that will be loaded, which tells the number of classes.

    Raises:
        FileNotFoundError: The weights of the backbone do not exist.
        ValueError: ``model.type`` is no PETLClassifier.
    """
    described = cfg.model.to_dict()
    described.pop('teacher', None)  # which only a training has
    if cfg.get('data_preprocessor') is not None:
        described.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    if tensors is not None and 'petl' in described:
        described['probe'] = False  # it was trained: whether it should be is no question any more
    if tensors is not None and 'head.fc.weight' in tensors and described.get('head') is not None:
        described['head']['num_classes'] = len(tensors['head.fc.weight'])
    try:
        with scope_of(cfg), _budget(described, tensors) if _ORIGIN in cfg else nullcontext():
            model = MODELS.build(described)
    except Exception as error:
        if _ORIGIN not in cfg:
            raise
        raise _refusal(cfg[_ORIGIN], str(error).partition('\n')[0]) from error
    if not isinstance(model, PETLClassifier):
        raise ValueError(f'{cfg.filename}: model.type is no PETLClassifier')
    model.eval()
    return model


def _budget(described: Mapping[str, Any], tensors: Mapping[str, Tensor] | None) -> Budget:
    """How many numbers a model may take that a file describes, by those that there are of it."""
    numbers = sum(tensor.numel() for tensor in (tensors or {}).values())
    init_cfg = described['backbone'].get('init_cfg')
    if _is_pretrained(init_cfg):
        path = resolve_path(init_cfg['checkpoint'])
        numbers += path.stat().st_size if path.is_file() else 0
    return Budget.for_weights(numbers)


def load_trained(
    model: PETLClassifier, tensors: Mapping[str, Tensor], checkpoint: str | Path
) -> None:
    """Loads a state dict, strictly.

    Raises:
        CheckpointError: It does not fit; the message begins with the name of the checkpoint.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from error


def config_of(checkpoint: str | Path) -> Config:
    """The config of the model that an adapter file describes, after it was checked.

    Args:
        checkpoint: The adapter file.

    Returns:
        A config with ``model`` and ``data_preprocessor``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged or no adapter file, lacks a part, or describes something
            that is not built from a file. The message names file and key.
    """
    path = resolve_path(checkpoint)
    if path.suffix != '.safetensors':
        raise CheckpointError(
            f'{checkpoint}: only an adapter file describes its model; give the config as well'
        )
    _, metadata = read_adapter(path)
    return described_config(metadata, checkpoint)


def described_config(metadata: Mapping[str, Any], checkpoint: str | Path) -> Config:
    """The config of the model that an adapter's metadata describe, after it was checked.

    Args:
        metadata: What :func:`~gleam_mm.checkpoint.read_adapter` gave.
        checkpoint: The adapter file that they come from.

    Returns:
        As :func:`config_of`.

    Raises:
        CheckpointError: As :func:`config_of`.
    """
    lacking = [part for part in ('method', 'backbone', 'head') if not metadata.get(part)]
    if lacking:
        raise CheckpointError(
            f'{checkpoint}: its metadata lack the {" and the ".join(lacking)}; give the config as '
            'well'
        )
    try:
        parts = {part: checked_part(part, metadata.get(part)) for part in _KINDS}
    except (CheckpointError, RecursionError) as error:
        reason = 'nested too deeply' if isinstance(error, RecursionError) else error
        raise _refusal(checkpoint, reason) from error
    preprocessor = parts.pop('data_preprocessor')
    model = dict(type='PETLClassifier', petl=parts.pop('method'), **parts)
    described = dict(default_scope='gleam_mm', model=model, data_preprocessor=preprocessor)
    described[_ORIGIN] = str(checkpoint)
    # Without a text, MMEngine would read the file.
    name = f'{resolve_path(checkpoint).resolve().parent.name}.py'
    return Config(described, cfg_text=f'# of {checkpoint}', filename=name)


def _refusal(checkpoint: str | Path, reason: object) -> CheckpointError:
    return CheckpointError(
        f'{checkpoint}: its metadata are not built: {reason}. If you trust its source, give the '
        'config as well'
    )


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
    if not _is_pretrained(weights):
        return _checked(part, config, MODELS, _KINDS[part])
    _check_weights(weights)
    rest = {key: value for key, value in config.items() if key != 'init_cfg'}
    checked = _checked(part, rest, MODELS, _KINDS[part])
    return {**checked, 'init_cfg': {**weights, 'type': 'Pretrained'}}


def _is_pretrained(config: Any) -> bool:
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
        raise CheckpointError(f'{where} is an address on a network: {checkpoint!r}')
    if PurePath(local).suffix not in _WEIGHTS:
        raise CheckpointError(f'{where} is no file of weights: {checkpoint!r}')


def _checked(where: str, value: Any, registry: Registry, wanted: type = object) -> Any:
    """A value with everything below it, as it may be built.

    Args:
        where: Its key, for messages.
        value: What JSON gave.
        registry: Where its type has to be registered, if it is a config.
        wanted: What its type has to derive from.
    """
    if isinstance(value, list):
        return [_checked(f'{where}.{i}', item, registry) for i, item in enumerate(value)]
    if isinstance(value, dict):
        config = {
            key: _checked(f'{where}.{key}', item, _REGISTRIES.get(key, registry))
            for key, item in value.items()
            if key != 'type'
        }
        for key, item in config.items():
            if key == '_scope_' or (isinstance(item, str) and _OPENS_FILES.fullmatch(key)):
                raise CheckpointError(f'{where}.{key}={item!r} would open another file')
        if 'type' in value or wanted is not object:
            component = _component(f'{where}.type', value.get('type'), registry, wanted)
            _check_arguments(where, component, config)
            config['type'] = value['type'].rpartition('.')[2]
        return config
    largest = _LARGEST_PADDING if where.endswith('.pad_size_divisor') else _LARGEST
    if isinstance(value, int) and abs(value) > largest:
        raise CheckpointError(f'{where} is {value:.3g}, and no model has that much of anything')
    if isinstance(value, str) and not _TEXT.fullmatch(value):
        raise CheckpointError(f'{where}={value!r} is neither a word nor a number')
    return value


def _component(where: str, name: Any, registry: Registry, wanted: type) -> type:
    component = registered(registry, name) if isinstance(name, str) else None
    if not inspect.isclass(component):
        raise CheckpointError(
            f'{where}={name!r} is no registered {registry.name}; a component of your own has to '
            'be imported first'
        )
    module = component.__module__
    if module.partition('.')[0] in _FRAMEWORKS and not module.startswith(_PARTS_OF_FRAMEWORKS):
        raise CheckpointError(f'{where}={name!r} is no part of a classifier')
    if not issubclass(component, wanted):
        raise CheckpointError(f'{where}={name!r} is no {wanted.__name__}')
    if component is PretrainedInit:
        raise CheckpointError(f'{where}={name!r} would open another file')
    return component


def _check_arguments(where: str, component: type, config: Mapping[str, Any]) -> None:
    """Refuses arguments that a class does not have, before anything is called."""
    parameters = inspect.signature(component).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in config:
        if not takes_any and key not in parameters:
            raise CheckpointError(f'{where}.{key}: {component.__name__} has no such argument')
