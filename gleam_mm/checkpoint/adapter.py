"""Adapter files: what was trained, and what it belongs to, in one ``.safetensors`` file.

The header has a JSON document of metadata (:mod:`gleam_mm.checkpoint.schema`) and, since schema 1,
a SHA-256 over it and the tensors, which safetensors itself does not have. Matrices that the
metadata call packed have few bits (:mod:`gleam_mm.checkpoint.packing`, since schema 2). The bytes
of a file follow from what it says: the same training writes the same file.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor, nn

from gleam_mm.checkpoint import packing, schema
from gleam_mm.checkpoint.files import ZIP, CheckpointError, require_file, resolve_path
from gleam_mm.checkpoint.fingerprint import fingerprint
from gleam_mm.checkpoint.identity import DESCRIBED, FINGERPRINT, in_order, pack
from gleam_mm.fileio import write_bytes

ADAPTER = 'adapter.safetensors'
"""What an adapter file is called in its training's work directory, and in its repository."""

_METADATA, DIGEST = 'gleam_mm', 'gleam_mm_sha256'  # keys in the header of an adapter file


def save_adapter(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes an adapter file, all at once.

    Args:
        path: The ``.safetensors`` file; replaced if it exists. By that suffix, whatever reads
            checkpoints tells an adapter from a pickle.
        tensors: What was trained, by name. Those of ``metadata['packed']`` are packed, but for
            matrices that are not finite.
        metadata: What :mod:`gleam_mm.checkpoint.schema` has words for, and whatever else JSON can
            say.

    Raises:
        CheckpointError: The metadata could not be read again.
        TypeError: JSON has no word for something in the metadata.
        ValueError: The path has another suffix.
    """
    if Path(path).suffix != '.safetensors':
        raise ValueError(f'{path}: an adapter is a .safetensors file; give it a name that ends so')
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {**metadata, 'schema': schema.VERSION}
    forms = packing.packable(tensors, metadata.get('packed') or {})
    if 'packed' in metadata:
        metadata['packed'] = forms
    document = describe(metadata)
    tensors = packing.pack(tensors, forms)
    header = {'format': 'pt', _METADATA: document, DIGEST: _digest(tensors, document)}
    write_bytes(path, _canonical(safetensors.save(tensors, metadata=header)))


def describe(metadata: Mapping[str, Any]) -> str:
    """Metadata as the JSON document that an adapter file has.

    Raises:
        CheckpointError: They could not be read again.
        TypeError: JSON has no word for something in them.
    """
    document = json.dumps(in_order(metadata), default=to_plain)
    schema.check(json.loads(document))
    return document


def read_adapter(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads an adapter file.

    Args:
        path: As in :func:`~gleam_mm.checkpoint.resolve_path`.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or no adapter file.
    """
    path = resolve_path(path)
    tensors, document = read_safetensors(path)
    if document is None:
        raise CheckpointError(
            f'{path}: no adapter of GLEAM-MM, for it has no metadata of one. Training writes '
            'adapter.safetensors into its work directory'
        )
    return tensors, document


def require_backbone(path: str | Path, metadata: Mapping[str, Any], ours: str) -> None:
    """Compares the backbone that an adapter was trained on with the one that is here.

    Args:
        path: The adapter file.
        metadata: What it says of itself.
        ours: The fingerprint of the backbone that is here.

    Raises:
        CheckpointError: It is another one.
    """
    theirs = metadata.get('backbone_fingerprint')
    if theirs != ours:
        raise CheckpointError(
            f'{path}: was trained on a backbone with the fingerprint {theirs}, but the backbone of '
            f'this model has {ours}'
        )


def load_adapter(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Loads an adapter file into a model, strictly.

    Args:
        model: A :class:`~gleam_mm.models.PETLClassifier` built from the config of the adapter.
        path: The adapter file.

    Returns:
        The metadata of the adapter.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged or no adapter file, was trained on another backbone or with
            other options, or does not fit the model.
    """
    tensors, metadata = read_adapter(path)
    if 'model' in metadata:
        raise CheckpointError(f'{path}: of a model of another library; gleam_mm.load takes it')
    try:
        model.load_state_dict(as_state_dict(tensors, metadata))
    except RuntimeError as error:
        raise CheckpointError(f'{path}: {error}') from error
    return metadata


def as_state_dict(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of the classifier that an adapter file was written from."""
    parts = {key: metadata[key] for key in DESCRIBED if metadata.get(key) is not None}
    return {**tensors, FINGERPRINT: pack(metadata.get('backbone_fingerprint', ''), parts)}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Reads tensors and, if the file is an adapter, its metadata.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged.
    """
    require_file(path)
    try:
        with safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = header.get(_METADATA)
        metadata = None if document is None else json.loads(document)
    except (SafetensorError, ValueError, RecursionError) as error:
        if _begins(path, ZIP):
            raise CheckpointError(
                f'{path}: a checkpoint as torch.save writes it, no safetensors file: where an '
                f'adapter is asked for, give the {ADAPTER} beside it; elsewhere call it .pth'
            ) from error
        raise CheckpointError(
            f'{path}: damaged, cut short or no safetensors file ({error}). Copy or download it '
            'again, or use another checkpoint'
        ) from error
    if document is None:
        return tensors, None
    try:
        metadata = schema.check(metadata)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
    if names := schema.sorted_methods(metadata):
        warnings.warn(
            f'{path}: written by a release that sorted methods by name. They act as '
            f'{"; ".join(names)}: if they were trained in another order, its outputs are wrong',
            stacklevel=3,
        )
    checked = 'schema' in metadata or DIGEST in header  # since the first release
    if checked and header.get(DIGEST) != _digest(tensors, document):
        raise CheckpointError(
            f'{path}: damaged: what it holds is not what its SHA-256 was made of. Copy or download '
            'it again, or use another checkpoint'
        )
    try:
        return packing.unpack(tensors, metadata.get('packed') or {}), metadata
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error


def _begins(path: Path, start: bytes) -> bool:
    with path.open('rb') as file:
        return file.read(len(start)) == start


def to_plain(value: Any) -> Any:
    """What JSON says for values of configs and metrics that it has no word for.

    Raises:
        TypeError: There is nothing to say for it.
    """
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return value.tolist()
    if isinstance(value, range):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, type):
        return f'{value.__module__}.{value.__qualname__}'
    raise TypeError(f'the metadata of an adapter cannot hold {value!r}: JSON has no word for it')


def _digest(tensors: Mapping[str, Tensor], document: str) -> str:
    return hashlib.sha256(f'{fingerprint(tensors)}\n{document}'.encode()).hexdigest()


def _canonical(data: bytes) -> bytes:
    """Gives the keys in the header of a safetensors file an order; the library has none."""
    start = 8  # the header follows its length
    end = start + int.from_bytes(data[:start], 'little')
    header = json.loads(data[start:end])
    header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)  # so that the tensors are aligned
    return len(text).to_bytes(start, 'little') + text + data[end:]
