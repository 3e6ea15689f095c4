"""Whose types a config names: said in full where it leaves us, and left out where it enters.

Within ``default_scope = 'gleam_mm'`` every type of ours, of MMPretrain and of MMEngine is found by
its bare name. MMPretrain's functions and tools look types up in their own scope, so a config that
is written for others says ``gleam_mm.PETLClassifier``.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from gleam_mm import registry

_KEYS = ('type', 'runner_type')
_KNOWN_BY_NAME = {'LoadImageFromFile'}
"""What MMPretrain's inferencers take out of a pipeline by its name, to load pictures themselves."""

_BELOW = (registry.SCOPE, 'mmpretrain', 'mmengine')


def with_scopes(cfg: Config) -> Config:
    """A config that MMPretrain's and MMEngine's own functions and tools take as it is.

    Types of ours carry their scope, and reading the config imports GLEAM-MM.

    Args:
        cfg: Left as it is.
    """
    ours, prefix = _ours(), f'{registry.SCOPE}.'
    told = _renamed(cfg.to_dict(), lambda name: f'{prefix}{name}' if name in ours else name)
    imports = told.get('custom_imports') or {}
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if registry.SCOPE not in names:
        told['custom_imports'] = {**imports, 'imports': [registry.SCOPE, *names]}
    return Config(told, cfg_text=cfg.text, filename=cfg.filename)


def without_scopes(cfg: Config) -> Config:
    """A config with bare names of types, if those of its default scope are.

    It drops what a ``_base_`` of another package (``mmpretrain::...``) leaves in its parts as well:
    within the scope of ours the same types are found, and ours beside them.

    Args:
        cfg: Left as it is.
    """
    imported = getattr(cfg, '_imported_names', None)  # by a new-style config, which has no names
    if cfg.get('default_scope') != registry.SCOPE or imported:
        return cfg
    prefix = f'{registry.SCOPE}.'
    # A dump of a new-style config has the module of a type in front.
    told = _renamed(
        cfg.to_dict(),
        lambda name: bare if '.' not in (bare := name.removeprefix(prefix)) else name,
        drop_scopes=True,
    )
    return Config(told, cfg_text=cfg.text, filename=cfg.filename)


def _ours() -> set[str]:
    """The names of the components that are registered here."""
    registries = [one for one in vars(registry).values() if isinstance(one, Registry)]
    for one in registries:
        one.import_from_location()
    return {name for one in registries for name in one.module_dict} - _KNOWN_BY_NAME


def _renamed(value: Any, rename: Any, drop_scopes: bool = False) -> Any:
    if isinstance(value, Mapping):
        renamed = {}
        for key, item in value.items():
            if drop_scopes and key == '_scope_' and item in _BELOW:
                continue
            is_type = key in _KEYS and isinstance(item, str)
            renamed[key] = rename(item) if is_type else _renamed(item, rename, drop_scopes)
        return renamed
    if isinstance(value, list | tuple):
        return type(value)(_renamed(item, rename, drop_scopes) for item in value)
    return value
