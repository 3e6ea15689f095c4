"""What a model says of its options, and how those of a checkpoint differ from it.

Weights fit a model with another ``alpha``, ``top_k`` or normalisation just as well, and give other
outputs. So a state dict carries the configs that it was trained with, and they are compared: with
the defaults of the classes filled in, and without what outputs do not depend on.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import mmengine
import mmpretrain
import torch

from gleam_mm.checkpoint import describe
from gleam_mm.checkpoint.identity import METHODS
from gleam_mm.petl.supernet import with_subnets
from gleam_mm.registry import MODELS, registered
from gleam_mm.version import __version__

_KEYS = {
    'method': 'model.petl',
    'backbone': 'model.backbone',
    'neck': 'model.neck',
    'head': 'model.head',
    'data_preprocessor': 'data_preprocessor',
}
"""Where a config has the parts of a model."""

_NEUTRAL = {
    'method': {'init_cfg'},
    # The fingerprint of the frozen weights sees to the architecture.
    'backbone': {
        *('arch', 'img_size', 'init_cfg', 'pretrained'),
        *('drop_rate', 'drop_path_rate', 'frozen_stages', 'norm_eval', 'with_cp'),
    },
    'neck': {'init_cfg'},
    # The shapes of the weights see to its size.
    'head': {'cal_acc', 'in_channels', 'init_cfg', 'loss', 'num_classes', 'topk'},
    'data_preprocessor': {'batch_augments', 'num_classes', 'to_onehot'},
}
"""Options of a part that may differ: they are seen to otherwise, or matter in training only."""


class Difference(NamedTuple):
    """An option that a checkpoint and a model have different values of."""

    key: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f'{self.key} is {self.theirs!r} in the checkpoint but {self.ours!r} in the model'


def of_parts(**parts: Any) -> dict[str, Any]:
    """Describes a model by the configs of its parts, as JSON can say them.

    Args:
        parts: Configs by the names of :data:`~gleam_mm.checkpoint.DESCRIBED`. One that is given as
            a module is left out: nothing is known of its options.

    Raises:
        FileNotFoundError: The method has a subnet in a file, and there is none.
        TypeError: JSON has no word for an option, so that no file could hold it.
    """
    known = {
        name: part for name, part in parts.items() if part is None or isinstance(part, dict | list)
    }
    described = json.loads(describe(with_subnets(known)))
    if described.get('data_preprocessor') is None:  # the images come prepared by somebody else
        described.pop('data_preprocessor', None)
    return described


def versions() -> dict[str, str]:
    """The versions of the packages that a model is made of."""
    return {
        'gleam_mm': __version__,
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'mmpretrain': mmpretrain.__version__,
    }


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[Difference]:
    """Compares two descriptions, as far as both have a part.

    Args:
        theirs: That of a checkpoint.
        ours: That of a model.
    """
    found: list[Difference] = []
    for part, key in _KEYS.items():
        if part in theirs and part in ours:
            pair = [_complete(part, described[part]) for described in (theirs, ours)]
            found += _compare(key, *pair)
    return found


def _complete(part: str, config: Any) -> Any:
    if part == 'data_preprocessor':
        config = {'type': 'ClsDataPreprocessor', **(config or {})}  # as in MMPretrain
    config = with_defaults(config)
    if isinstance(config, dict):
        return {key: value for key, value in config.items() if key not in _NEUTRAL[part]}
    return config


def with_defaults(value: Any) -> Any:
    """Fills in what the classes that a config names make of options that it leaves out."""
    if isinstance(value, list | tuple | range):  # files know lists alone
        return [with_defaults(item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {key: with_defaults(item) for key, item in value.items() if key != '_scope_'}
    if isinstance(name := filled.get('type'), str):
        filled['type'] = name.rpartition('.')[2]
        component = registered(MODELS, name)
        if inspect.isclass(component):
            filled = {**_defaults(component), **filled}
    return filled


def _defaults(component: type) -> dict[str, Any]:
    """The defaults of a class, as JSON can say them."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.default is not parameter.empty
    }
    return json.loads(json.dumps(defaults, default=repr))


def _compare(key: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        if theirs != ours:
            yield Difference(key, theirs, ours)
    elif theirs.get('type') != ours.get('type'):
        yield Difference(f'{key}.type', theirs.get('type'), ours.get('type'))
    elif key.endswith(f'.{METHODS}') and theirs.keys() == ours.keys() and [*theirs] != [*ours]:
        yield Difference(key, [*theirs], [*ours])
    else:
        for name in sorted({*theirs, *ours}):
            yield from _compare(f'{key}.{name}', theirs.get(name), ours.get(name))
