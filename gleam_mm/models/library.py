"""Trained adapters as parts of a method: read from files, put into its config, and handed over."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from gleam_mm.checkpoint import CheckpointError, fingerprint, read_adapter
from gleam_mm.models import description
from gleam_mm.petl import PETLMethod, TrainedAdapter
from gleam_mm.petl.compose import named
from gleam_mm.registry import MODELS, registered

_METHOD = 'petl.'
_OTHERS = ('head', 'neck')


def read(files: Mapping[str, str | Path]) -> dict[str, tuple[Path, dict[str, Any], TrainedAdapter]]:
    """Reads adapter files: name -> file, metadata and method.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: One is damaged, or trains parameters of the backbone itself.
    """
    found = {}
    for name, file in files.items():
        tensors, metadata = read_adapter(file)
        packed = metadata.get('packed') or {}
        own = {k.removeprefix(_METHOD): t for k, t in tensors.items() if k.startswith(_METHOD)}
        strange = [key for key in tensors if not key.startswith((_METHOD, *_OTHERS))]
        config = metadata.get('method')
        if strange or not isinstance(config, Mapping):
            reason = (
                f'trains {strange[0]} of the backbone itself' if strange else 'has no one method'
            )
            raise CheckpointError(f'{file}: {reason}, so that it is no part of another method')
        if 'bits' not in config:  # then it was packed after its training
            scales = {f'{key.removeprefix(_METHOD)}_scales' for key in packed}
            own = {key: tensor for key, tensor in own.items() if key not in scales}
        found[name] = Path(file), metadata, TrainedAdapter(config, own)
    return found


def configured(
    petl: Mapping[str, Any], taken: Mapping[str, tuple[Path, dict, TrainedAdapter]]
) -> dict[str, Any]:
    """The config of a method, with the methods of files among its parts, and frozen.

    Raises:
        CheckpointError: It has a part of that name already, with other options.
    """
    kind = registered(MODELS, str(petl['type']))
    arguments = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
    config = dict(petl)
    if 'methods' in arguments:
        theirs = {name: dict(adapter.config) for name, (_, _, adapter) in taken.items()}
        ours = named(petl.get('methods') or {})
        for name in theirs.keys() & ours.keys():
            pair = dict(method=theirs[name]), dict(method=ours[name])
            if differing := description.differences(*pair):
                raise CheckpointError(f'{taken[name][0]}: {"; ".join(map(str, differing))}')
        config['methods'] = {**theirs, **ours}
    if 'frozen' in arguments:
        config.setdefault('frozen', list(taken))
    return config


def hand_over(
    taken: Mapping[str, tuple[Path, dict, TrainedAdapter]], petl: PETLMethod, backbone: nn.Module
) -> None:
    """Gives a method that is attached to a backbone the adapters that were trained on the same.

    Raises:
        CheckpointError: They were trained on another one, or do not fit the method.
    """
    ours = fingerprint(backbone.state_dict())
    for file, metadata, _ in taken.values():
        theirs = metadata.get('backbone_fingerprint')
        if theirs != ours:
            raise CheckpointError(
                f'{file}: was trained on a backbone with the fingerprint {theirs}, but the '
                f'backbone of this model has {ours}'
            )
    try:
        petl.take({name: adapter for name, (_, _, adapter) in taken.items()})
    except (RuntimeError, ValueError) as error:
        files = ', '.join(str(file) for file, _, _ in taken.values())
        raise CheckpointError(f'{files}: {error}') from error
