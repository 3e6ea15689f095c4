"""What was trained, out of adapter files and checkpoints, and whether several go together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gleam_mm.checkpoint import (
    FINGERPRINT,
    CheckpointError,
    classes_of_meta,
    identity,
    load_from_local,
    read_adapter,
    resolve_path,
)
from gleam_mm.checkpoint.packing import forms_of, pack, packable, unpack
from gleam_mm.models import description
from gleam_mm.models.own_classifier import BESIDE
from gleam_mm.petl.compose import named
from gleam_mm.registry import MODELS, registered

METHOD = 'petl.'
"""What the names of a method's own tensors begin with."""


class Trained(NamedTuple):
    """What a file holds.

    Attributes:
        path: The file, as it was given.
        tensors: What was trained, by name; packed matrices as the numbers that they stand for.
        metadata: What the file says about itself.
    """

    path: str
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def read(path: str | Path) -> Trained:
    """Reads an adapter file, or a ``.pth`` checkpoint of a training, which says less of itself.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or holds no method.
    """
    if resolve_path(path).suffix == '.safetensors':
        tensors, metadata = read_adapter(path)
    else:
        tensors, metadata = _read_checkpoint(path)
    if not metadata.get('method'):
        raise CheckpointError(f'{path}: does not say its method, so that no sums are done with it')
    packed = metadata.pop('packed', None)
    if packed is None:
        tensors, packed = _rounded(tensors, metadata['method'])
    scales = {f'{name}_scales' for name in packed}
    return Trained(
        str(path), {name: t for name, t in tensors.items() if name not in scales}, metadata
    )


def _rounded(tensors: dict[str, Tensor], method: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's matrices of few bits, as the model computes with them; and which they are."""
    bits = {
        name: part['bits']
        for prefix, part in parts(method)
        for name in tensors
        if name.startswith(prefix) and f'{name}_scales' in tensors
    }
    forms = packable(tensors, forms_of(bits, tensors))
    return unpack(pack(tensors, forms), forms), forms


def _read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    content = load_from_local(str(path))
    tensors = dict(content.get('state_dict', {}))
    if FINGERPRINT not in tensors:
        raise CheckpointError(f'{path}: no checkpoint of a PETLClassifier')
    fingerprint, described = identity.unpack(tensors.pop(FINGERPRINT))
    classes = classes_of_meta(content.get('meta'))
    known = {'backbone_fingerprint': fingerprint, 'classes': list(classes) if classes else None}
    return tensors, {**described, **known}


def is_head(name: str) -> bool:
    """Whether a tensor belongs to the head, or to the neck before it."""
    return name.startswith(BESIDE)


def each_part(
    config: Any, change: Callable[[dict[str, Any], str], dict[str, Any]], prefix: str = METHOD
) -> dict[str, Any]:
    """The config of a method in which each method that is not made of others was changed.

    Args:
        config: The config, or a list of them.
        change: Called with a config, and with what the names of its tensors begin with.
        prefix: What those of the whole begin with.
    """
    if isinstance(config, list):
        config = dict(type='Compose', methods=config)
    if 'methods' in config:
        methods = {
            name: each_part(part, change, f'{prefix}local.{name}.')
            for name, part in named(config['methods']).items()
        }
        return {**config, 'methods': methods}
    return change(config, prefix)


def parts(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The methods that a method is made of, or itself: what their names begin with, and configs."""
    found: list[tuple[str, dict[str, Any]]] = []
    each_part(config, lambda part, prefix: found.append((prefix, part)) or part)
    yield from found


def counters(config: Mapping[str, Any], prefix: str) -> set[str]:
    """The names of what counts training steps in a method that is not made of others.

    Args:
        config: The config of the method.
        prefix: What the names of its tensors begin with.
    """
    method = registered(MODELS, str(config['type']))
    return {f'{prefix}{name}' for name in getattr(method, 'counters', ())}


def require_alike(files: Sequence[Trained], loose: Callable[[dict, str], dict]) -> None:
    """Refuses files of different backbones, models or methods.

    Args:
        files: The files; the first is what the others are compared with.
        loose: Takes out of the config of a method what may differ; see :func:`each_part`.

    Raises:
        CheckpointError: Two differ; the message names both, and what differs.
    """
    first = files[0]
    ours = first.metadata
    for other in files[1:]:
        theirs = other.metadata
        between = f'{other.path} and {first.path}'
        if theirs.get('model') != ours.get('model'):
            raise CheckpointError(
                f'{between}: the models differ, {theirs.get("model")} and {ours.get("model")}'
            )
        described = [
            {key: m[key] for key in ('backbone', 'neck', 'data_preprocessor') if key in m}
            | {'method': each_part(m['method'], loose)}
            for m in (theirs, ours)
        ]
        if differing := description.differences(*described):
            told = '; '.join(f'{d.key} is {d.theirs!r} and {d.ours!r}' for d in differing)
            raise CheckpointError(f'{between}: {told}')
        # Last, for a method that trains other parameters leaves others frozen.
        pair = [m.get('backbone_fingerprint') for m in (theirs, ours)]
        if pair[0] != pair[1]:
            raise CheckpointError(
                f'{between} were trained on different backbones, with the fingerprints {pair[0]} '
                f'and {pair[1]}'
            )
