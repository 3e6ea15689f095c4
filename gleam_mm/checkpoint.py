"""Weights in files: backbones, checkpoints and adapters.

Reading never runs code that a file asks for: safetensors cannot, and pickles are only loaded with
torch's safe loading. MMEngine reads local files through this module as well, so ``load_from``,
``--resume`` and ``init_cfg=dict(type='Pretrained')`` take ``.safetensors`` and ``gleam_mm://``.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor, nn

from gleam_mm.fileio import write_bytes

SCHEME = 'gleam_mm://'  # a file inside the installed package
FINGERPRINT = '_extra_state'  # where PyTorch puts get_extra_state(): PETLClassifier's fingerprint

_METADATA = 'gleam_mm'  # the key of the JSON document in the header of an adapter file
_ZIP, _PICKLE = b'PK', b'\x80'  # how torch.save's files begin, and since torch 1.6, and before
_MOST_NAMES = 5


class CheckpointError(RuntimeError):
    """A file that cannot be loaded. The message names it and says what to do."""


def resolve_path(path: str | Path) -> Path:
    """Finds a file on this machine.

    Args:
        path: A path, in which ``~`` is the home directory. ``gleam_mm://weights/x.safetensors`` is
            the file ``weights/x.safetensors`` in the installed package.

    Returns:
        The path in the file system; the file may be missing.
    """
    path = str(path)
    if path.startswith(SCHEME):
        return Path(__file__).parent / path.removeprefix(SCHEME)
    return Path(path).expanduser()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads weights.

    Args:
        path: A ``.safetensors`` file, or one made by ``torch.save`` that holds a state dict or
            ``{'state_dict': ...}``. Also what MMEngine knows, such as ``https://``.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, holds something else, or may only be loaded unsafely.
    """
    if '://' in str(path) and not str(path).startswith(SCHEME):
        content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    else:
        content = _load(resolve_path(path))
    state_dict = content.get('state_dict', content) if isinstance(content, Mapping) else content
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise CheckpointError(f'{path}: holds no weights, but {_kind(state_dict)}')
    other = [key for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if other:
        raise CheckpointError(
            f'{path}: holds something else than weights: {_names(other)}; expected a state dict, '
            "or {'state_dict': ...}"
        )
    return dict(state_dict)


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str = '') -> None:
    """Loads pretrained weights into a backbone, strictly.

    The module's own hooks come first, such as those with which MMPretrain's ViT interpolates
    position embeddings. Half-precision weights are converted to the type of the backbone.

    Args:
        backbone: The backbone; changed in place.
        path: As in :func:`read_state_dict`.
        prefix: What the keys of the backbone begin with in the file, such as ``'backbone.'``. Other
            keys are ignored.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be read, lacks a weight of the backbone, or has one more
            under the prefix.
    """
    try:
        tensors = read_state_dict(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: the backbone's pretrained weights are not there; put them there, or say "
            'where they are with model.backbone.init_cfg.checkpoint'
        ) from error
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    own = {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
    if not own:
        raise CheckpointError(
            f"{path}: no key begins with '{prefix}'; it has {_names(sorted(tensors))}. Set "
            '`prefix` of init_cfg to what the keys of the backbone begin with'
        )
    try:
        missing, unexpected = backbone.load_state_dict(own, strict=False)
    except RuntimeError as error:  # shapes, one a line
        shapes = '; '.join(line.strip() for line in str(error).splitlines()[1:]) or error
        raise CheckpointError(
            f'{path}: does not fit {type(backbone).__name__}: {shapes}'
        ) from error
    if missing or unexpected:
        raise CheckpointError(
            f'{path}: its keys are not those of {type(backbone).__name__}. Missing in the file: '
            f'{_names(missing)}. Not in the backbone: {_names(unexpected)}.'
            f'{_prefix_hint(tensors, backbone, prefix)}'
        )


def _prefix_hint(tensors: Mapping[str, Tensor], backbone: nn.Module, prefix: str) -> str:
    """Names a prefix with which the file would have more of the backbone's keys."""
    keys = set(backbone.state_dict())
    first = min(keys)
    for key in tensors:
        candidate = key.removesuffix(first)
        if key.endswith(f'.{first}') and candidate != prefix:
            return f" Did you mean prefix='{candidate}'?"
    return ' The file must have the key names and the architecture of the config.'


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Tells sets of weights apart.

    Args:
        tensors: Tensors by name, in any order and on any device.

    Returns:
        Hexadecimal SHA-256 over the sorted names, the types, shapes and bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_adapter(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes an adapter file, all at once.

    Args:
        path: The ``.safetensors`` file; replaced if it exists.
        tensors: What was trained, by name.
        metadata: Anything that JSON can say: the method, the backbone, classes, metrics, versions.
    """
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    document = json.dumps(metadata, default=_plain)
    header = {'format': 'pt', _METADATA: document}
    write_bytes(path, safetensors.save(tensors, metadata=header))


def read_adapter(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads an adapter file.

    Args:
        path: As in :func:`resolve_path`.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or no adapter file.
    """
    path = resolve_path(path)
    tensors, document = _load_safetensors(path)
    if document is None:
        raise CheckpointError(
            f'{path}: no adapter of GLEAM-MM, for it has no metadata of one. Training writes '
            'adapter.safetensors into its work directory'
        )
    return tensors, document


def load_adapter(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Loads an adapter file into a model, strictly.

    Args:
        model: A :class:`~gleam_mm.models.PETLClassifier` built from the config of the adapter.
        path: The adapter file.

    Returns:
        The metadata of the adapter.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged or no adapter file, was trained on another backbone, or does
            not fit the model.
    """
    tensors, metadata = read_adapter(path)
    try:
        model.load_state_dict(_with_fingerprint(tensors, metadata))
    except RuntimeError as error:
        raise CheckpointError(f'{path}: {error}') from error
    return metadata


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Reads a checkpoint for MMEngine. An adapter file becomes the checkpoint that it came from.

    Args:
        filename: As in :func:`resolve_path`.
        map_location: As in :func:`torch.load`.

    Returns:
        The content of the file; of a ``.safetensors`` file, ``{'state_dict': ..., 'meta': {}}``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or may only be loaded unsafely.
    """
    path = resolve_path(filename)
    content = _load(path, map_location)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: holds no checkpoint, but {_kind(content)}')
    return content


CheckpointLoader.register_scheme(prefixes=['', SCHEME], loader=load_from_local, force=True)


def _load(path: Path, map_location: Any = 'cpu') -> Any:
    if path.suffix == '.safetensors':
        tensors, document = _load_safetensors(path)
        if document is not None:
            tensors = _with_fingerprint(tensors, document)
        return {'state_dict': tensors, 'meta': {}}
    _require_file(path)
    with path.open('rb') as file:
        start = file.read(2)
    if not start.startswith((_ZIP, _PICKLE)):
        raise CheckpointError(
            f'{path}: no checkpoint. Expected a file made by torch.save or a .safetensors file; '
            'a download may have saved a web page or a Git LFS pointer instead'
        )
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path}: refused, for it asks for {_asked_for(error)} when it is loaded. Only safe '
            'loading is done: a file may hold tensors, numbers, strings and containers of them. If '
            'you trust its source, convert it to .safetensors where it was made'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, IndexError, KeyError) as error:
        reason = str(error).partition('\n')[0].partition('. ')[0] or type(error).__name__
        raise CheckpointError(
            f'{path}: damaged or cut short ({reason}). Copy or download it again, or use another '
            'checkpoint'
        ) from error


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Reads tensors and, if it is an adapter, its metadata."""
    _require_file(path)
    try:
        with safe_open(path, framework='pt') as file:
            document = (file.metadata() or {}).get(_METADATA)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, None if document is None else json.loads(document)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f'{path}: damaged, cut short or no safetensors file ({error}). Copy or download it '
            'again, or use another checkpoint'
        ) from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        what = 'a directory' if path.is_dir() else 'no such file'
        raise FileNotFoundError(f'{path}: {what}; give the path of a checkpoint file')


def _with_fingerprint(tensors: dict[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, Tensor]:
    """Adds the fingerprint of the backbone in the way of the classifier's state dict."""
    known = bytes.fromhex(metadata.get('backbone_fingerprint', ''))
    return {**tensors, FINGERPRINT: torch.tensor(list(known), dtype=torch.uint8)}


def _asked_for(error: Exception) -> str:
    """The function or class that a pickle wants, taken from torch's message."""
    found = re.search(r'GLOBAL (getattr\(.*?\)|\S+)', str(error))
    return found[1] if found else 'more than torch.save writes for weights'


def _kind(value: Any) -> str:
    return f'an empty {type(value).__name__}' if not value else f'a {type(value).__name__}'


def _names(keys: list[str]) -> str:
    if not keys:
        return 'none'
    rest = len(keys) - _MOST_NAMES
    return ', '.join(map(str, keys[:_MOST_NAMES])) + (f' and {rest} more' if rest > 0 else '')


def _plain(value: Any) -> Any:
    """Values of configs and metrics that JSON has no word for."""
    if isinstance(value, np.generic | Tensor):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, type):
        return f'{value.__module__}.{value.__qualname__}'
    raise TypeError(f'the metadata of an adapter cannot hold {value!r}: JSON has no word for it')
