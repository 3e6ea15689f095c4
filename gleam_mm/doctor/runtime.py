"""Loops and hooks: whether they know what the config tells them."""

from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from gleam_mm.arguments import argument_names
from gleam_mm.doctor.findings import Findings
from gleam_mm.messages import hint_at
from gleam_mm.registry import HOOKS, LOOPS, scope_of


def check(cfg: Config, findings: Findings) -> None:
    """Examines the loops and hooks of a config, without building them.

    Args:
        cfg: The whole config.
        findings: Where findings go.
    """
    with scope_of(cfg):
        for name, hook in (cfg.get('default_hooks') or {}).items():
            _check(HOOKS, hook, f'default_hooks.{name}', findings)
        for index, hook in enumerate(cfg.get('custom_hooks') or []):
            _check(HOOKS, hook, f'custom_hooks.{index}', findings)
        by_epoch = (cfg.get('train_cfg') or {}).get('by_epoch', True)
        kinds = {
            'train': 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop',
            'val': 'ValLoop',
            'test': 'TestLoop',
        }
        for split, kind in kinds.items():
            loop = cfg.get(f'{split}_cfg')
            if isinstance(loop, dict):
                own = {key: value for key, value in loop.items() if key != 'by_epoch'}
                _check(LOOPS, {'type': kind, **own}, f'{split}_cfg', findings)


def _check(registry: Registry, config: Any, name: str, findings: Findings) -> None:
    if not isinstance(config, dict):
        return  # a hook that is switched off, or an object
    given = dict(config)
    kind = given.pop('type', None)
    with findings.gathered(name):
        found = registry.get(kind) if isinstance(kind, str) else kind
        if found is None:
            raise ValueError(f'type={kind!r}: there is no such component')
        known = argument_names(found)
        for key in (key for key in given if key not in known):
            raise ValueError(f'{name} has no {key!r}{hint_at(key, known)}')
