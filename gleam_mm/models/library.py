"""Trained adapters as parts of a method: read from files, put into its config, and handed over."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from gleam_mm.arguments import ArgumentError
from gleam_mm.checkpoint import CheckpointError, read_adapter, require_backbone
from gleam_mm.messages import shown
from gleam_mm.models import description
from gleam_mm.models.budget import Budget
from gleam_mm.models.own_classifier import BESIDE
from gleam_mm.models.parts import checked_part
from gleam_mm.petl import PETLMethod, TrainedAdapter
from gleam_mm.petl.building import kind_of
from gleam_mm.petl.compose import named
from gleam_mm.registry import MODELS, registered

_METHOD = 'petl.'


def files_by_name(adapters: Mapping[str, str | Path] | None) -> Mapping[str, str | Path]:
    """Adapter files as an argument ``adapters`` has them, which may be none.

    Raises:
        ArgumentError: They have no names.
    """
    if adapters is None or isinstance(adapters, Mapping):
        return adapters or {}
    raise ArgumentError(
        f"adapters={shown(adapters)}: give each file a name, {{'pets': 'pets.safetensors'}}"
    )


def read(files: Mapping[str, str | Path]) -> dict[str, tuple[Path, dict[str, Any], TrainedAdapter]]:
    """Reads adapter files: name -> file, metadata and method.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: One is damaged, trains parameters of the backbone itself, or describes
            what is not built from a file.
    """
    found = {}
    for name, file in files.items():
        tensors, metadata = read_adapter(file)
        own = {k.removeprefix(_METHOD): t for k, t in tensors.items() if k.startswith(_METHOD)}
        strange = [key for key in tensors if not key.startswith((_METHOD, *BESIDE))]
        config = metadata.get('method')
        if strange or not isinstance(config, dict):
            reason = (
                f'trains {strange[0]} of the backbone itself' if strange else 'has no one method'
            )
            raise CheckpointError(f'{file}: {reason}, so that it is no part of another method')
        try:
            config = checked_part('method', config)
        except CheckpointError as error:
            raise CheckpointError(f'{file}: its method is not built: {error}') from error
        found[name] = Path(file), metadata, TrainedAdapter(config, own)
    return found


def configured(
    petl: Mapping[str, Any], taken: Mapping[str, tuple[Path, dict, TrainedAdapter]]
) -> dict[str, Any]:
    """The config of a method, with the methods of files among its parts, and frozen.

    Raises:
        CheckpointError: It has a part of that name already, with other options.
        ValueError: It has no type.
    """
    kind = registered(MODELS, str(kind_of(petl)))
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


def budget(
    taken: Mapping[str, tuple[Path, dict, TrainedAdapter]], backbone: nn.Module
) -> AbstractContextManager:
    """Bounds what is made of methods that files describe; nothing, where there are none."""
    if not taken:
        return nullcontext()
    numbers = sum(parameter.numel() for parameter in backbone.parameters())
    for _, _, adapter in taken.values():
        numbers += sum(tensor.numel() for tensor in adapter.tensors.values())
    return Budget.for_weights(numbers)


def hand_over(
    taken: Mapping[str, tuple[Path, dict, TrainedAdapter]], petl: PETLMethod, *ours: str
) -> None:
    """Gives a method the adapters that were trained on the backbone that it is attached to.

    Args:
        taken: What :func:`read` gave.
        petl: The method.
        *ours: The fingerprint of the backbone; with and without what may be frozen or trained.

    Raises:
        CheckpointError: They were trained on another one, or do not fit the method.
    """
    for file, metadata, _ in taken.values():
        theirs = metadata.get('backbone_fingerprint')
        require_backbone(file, metadata, theirs if theirs in ours else ours[0])
    try:
        petl.take({name: adapter for name, (_, _, adapter) in taken.items()})
    except (RuntimeError, ValueError) as error:
        files = ', '.join(str(file) for file, _, _ in taken.values())
        raise CheckpointError(f'{files}: {error}') from error
