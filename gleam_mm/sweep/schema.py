"""What the database of a study may say, checked before anything is done with it.

It may come from anybody. Its options become configs, so that they must not name what MMEngine would
import: only components that are registered already, and none of the user's own package. Those are
for the user's own files and flags.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gleam_mm import registry
from gleam_mm.shapes import (
    COUNT,
    MAPPING,
    NUMBER,
    POSITIVE,
    TEXT,
    TRUTH,
    Shape,
    check,
    dict_of,
    fields,
    list_of,
    matching,
    optional,
)
from gleam_mm.shell import command
from gleam_mm.sweep.plan import FINAL, SELECT, Job, Sweep

_NAME = matching('a name of letters, digits, _, -, . and =', r'\w[\w.=-]*')
_OPTIONS = Shape(
    'a mapping of keys of the config',
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(key, str) and re.fullmatch(r'\w[\w.-]*', key) for key in value)
    ),
)
_VALUES = Shape('a list of values', lambda value: isinstance(value, list) and len(value) > 0)

_SWEEP = {
    'backbone': _NAME,
    'methods': list_of(_NAME),
    'datasets': list_of(_NAME),
    'seeds': Shape('a list of seeds', lambda v: _VALUES.fits(v) and list_of(COUNT).fits(v)),
    'trial_seeds': POSITIVE,
    'grid': dict_of(dict_of(_VALUES)),
    'options': _OPTIONS,
    'variants': dict_of(fields({'method': _NAME, 'options': _OPTIONS})),
    'final': TRUTH,
    'heartbeat': POSITIVE,
}
_OLDEST = ('backbone', 'methods', 'datasets', 'seeds')  # other settings have defaults
_JOB = {
    'phase': Shape(f'{SELECT} or {FINAL}', lambda value: value in (SELECT, FINAL)),
    'method': _NAME,
    'dataset': _NAME,
    'seed': COUNT,
    'options': _OPTIONS,
}
_EPOCH = fields(
    {'epoch': COUNT, 'loss': optional(NUMBER), 'lr': NUMBER, 'accuracy': NUMBER},
    least=('epoch', 'loss', 'lr'),
)
_NOTES = {
    'job': MAPPING,
    'worker': fields({'host': TEXT, 'pid': COUNT}),
    'log': TEXT,
    'error': TEXT,
    'progress': Shape('two numbers', lambda v: list_of(COUNT).fits(v) and len(v) == 2),
    'backbone': TEXT,
    'parameters': COUNT,
    'seconds': NUMBER,
    'curve': list_of(_EPOCH),
}

# The keys of a config whose values MMEngine looks up by name, and imports if nothing has that name.
_LOOKED_UP = ('type', 'constructor', 'runner_type')
_REFUSED = ('custom_imports', 'default_scope', '_scope_', '_base_')
_REGISTRIES = [getattr(registry, name) for name in registry.__all__ if name.isupper()]


def read_sweep(found: Any) -> Sweep:
    """The settings of a sweep.

    Raises:
        ValueError: They have another shape; the message names the key.
    """
    return Sweep.from_dict(check(found, _SWEEP, least=_OLDEST))


def read_job(found: Any) -> Job:
    """What a trial trains.

    Raises:
        ValueError: It has another shape; the message names the key.
    """
    return Job(**check(found, _JOB))


def read_notes(found: Any) -> dict[str, Any]:
    """What workers have noted beside a trial.

    Raises:
        ValueError: It has another shape; the message names the key.
    """
    return check(found, _NOTES, least=())


def check_options(sweep: Sweep) -> None:
    """Refuses options that would make MMEngine import something.

    Raises:
        ValueError: There are some; the message names the key.
    """
    parts: dict[str, Mapping] = {'options': sweep.options}
    parts |= {f'variants.{name}': variant.options for name, variant in sweep.variants.items()}
    parts |= {
        f'grid.{method}.{name}.{index}': {name: value}
        for method, grid in sweep.grid.items()
        for name, values in grid.items()
        for index, value in enumerate(values)
    }
    for where, options in parts.items():
        for path, value in _leaves(options):
            words = path.split('.')
            looked_up = set(words) & set(_LOOKED_UP)
            known = words[-1] in looked_up and isinstance(value, str) and _is_registered(value)
            if (looked_up and not known) or set(words) & set(_REFUSED):
                raise ValueError(
                    f'{where}: {path} is {value!r}, which is for your own files and flags alone: '
                    f'use {command("sweep", "run")!r} with the file or flags of this sweep'
                )


def _leaves(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        here = f'{path}.{key}' if path else str(key)
        if isinstance(inner, dict | list) and inner:
            yield from _leaves(inner, here)
        else:
            yield here, inner


def _is_registered(name: str) -> bool:
    return any(registry.registered(known, name) is not None for known in _REGISTRIES)
