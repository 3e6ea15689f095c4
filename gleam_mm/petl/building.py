"""How a method is built of its config."""

import inspect
from collections.abc import Mapping
from typing import Any

from gleam_mm import errors
from gleam_mm.messages import shown
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


def build_method(config: Any) -> PETLMethod:
    """Builds a method, in the scope of who calls; one that is built already is given back.

    Raises:
        TypeError: It is no config.
        ValueError: Its type is missing or unknown, or that of something else.
    """
    if isinstance(config, PETLMethod):
        return config
    kind = kind_of(config)
    with MODELS.switch_scope_and_registry(config.get('_scope_')) as registry:  # as it is built in
        found = registry.get(kind) if isinstance(kind, str) else kind
    if found is None:
        raise ValueError(errors.unknown_type(str(kind), MODELS.name))
    if inspect.isclass(found) and not issubclass(found, PETLMethod):
        raise ValueError(f"type={kind!r} is no PETL method, such as type='GLEAM'")
    method = MODELS.build(config)
    if not isinstance(method, PETLMethod):  # a function may make anything
        raise ValueError(f'type={kind!r} makes a {type(method).__name__}, which is no PETL method')
    return method


def kind_of(config: Any) -> Any:
    """The type that the config of a method names.

    Raises:
        TypeError: It is no config.
        ValueError: It names none.
    """
    if not isinstance(config, Mapping):
        raise TypeError(
            f"{shown(config)} is no config of a method: give one, such as dict(type='LoRA', rank=8)"
        )
    if config.get('type') is None:
        raise ValueError(
            f"{shown(dict(config))}: the config of a method has its type, such as type='LoRA'"
        )
    return config['type']
