"""What the database of a study may say, checked before anything is done with it.

It may come from anybody. Its options become configs, so that they must not name what MMEngine would
import, nor a file or an address that something would open. Those are for the user's own files and
flags.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gleam_mm import registry
from gleam_mm.checkpoint import CheckpointError
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
from gleam_mm.sweep.plan import FINAL, SELECT, Job, Sweep, option_key

_NAME = matching('a name of letters, digits, _, -, . and =', r'\w[\w.=-]*')
OPTIONS = Shape(
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
    'options': OPTIONS,
    'variants': dict_of(fields({'method': _NAME, 'options': OPTIONS})),
    'final': TRUTH,
    'heartbeat': POSITIVE,
}
_OLDEST = ('backbone', 'methods', 'datasets', 'seeds')  # other settings have defaults
_JOB = {
    'phase': Shape(f'{SELECT} or {FINAL}', lambda value: value in (SELECT, FINAL)),
    'method': _NAME,
    'dataset': _NAME,
    'seed': COUNT,
    'options': OPTIONS,
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
_LOOKED_UP = ('type', 'constructor')
_REFUSED = ('custom_imports', 'default_scope', '_scope_', '_base_')
_METHOD = 'model.petl'
_REGISTRIES = {
    'optim_wrapper': (
        registry.OPTIM_WRAPPERS,
        registry.OPTIMIZERS,
        registry.OPTIM_WRAPPER_CONSTRUCTORS,
    ),
    'param_scheduler': (registry.PARAM_SCHEDULERS,),
}
"""The parts of a config, beside the method, whose options may be words, and what theirs may name.

A word elsewhere may name a file to read (``ann_file`` and pickles), one to write, or an address.
"""
_CONFIGS = ('.py', '.json', '.yaml', '.yml')


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
    """Refuses what would make MMEngine import something, or open a file that the options name.

    Numbers and truth values may stand anywhere; words only where a method, an optimizer or a
    schedule is described, each by a closed list of types.

    Raises:
        ValueError: There is something of the kind; the message names the key.
    """
    for name in (sweep.backbone, *sweep.methods, *sweep.datasets):
        if name.endswith(_CONFIGS):
            raise _refusal(f'{name!a} is a file')
    parts: dict[str, Mapping] = {'options': sweep.options}
    parts |= {f'variants.{name}': _in_full(v.options) for name, v in sweep.variants.items()}
    parts |= {
        f'grid.{method}.{name}.{index}': _in_full({name: value})
        for method, grid in sweep.grid.items()
        for name, values in grid.items()
        for index, value in enumerate(values)
    }
    for where, options in parts.items():
        for path, value in options.items():
            if path == _METHOD or path.startswith(f'{_METHOD}.'):
                _check_method(where, path, value)
            else:
                _check_others(where, path, value)


def _in_full(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option_key(name): value for name, value in options.items()}


def _check_method(where: str, path: str, value: Any) -> None:
    for key in reversed(path.removeprefix(_METHOD).split('.')[1:]):
        value = {key: value}
    # Imported here, for who looks at a study, and trains nothing of it, needs no models.
    from gleam_mm.models.parts import check_changes

    try:
        check_changes('method', value)
    except CheckpointError as error:
        raise _refusal(f'{where}: {_METHOD}: {error}') from error


def _check_others(where: str, path: str, value: Any) -> None:
    for key, leaf in _leaves(value, path):
        words = key.split('.')
        known = _REGISTRIES.get(words[0], ())
        looked_up = set(words) & set(_LOOKED_UP)
        if (looked_up and words[-1] not in looked_up) or set(words) & set(_REFUSED):
            fine = False
        elif looked_up:
            fine = isinstance(leaf, str) and any(registry.registered(r, leaf) for r in known)
        else:
            fine = not isinstance(leaf, str) or bool(known)
        if not fine:
            raise _refusal(f'{where}: {key} is {leaf!r}')


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f'{path}.{key}')
    else:
        yield path, value


def _refusal(found: str) -> ValueError:
    return ValueError(
        f'{found}, which is for your own files and flags alone: use '
        f'{command("sweep", "run")!r} with the file or flags of this sweep'
    )
