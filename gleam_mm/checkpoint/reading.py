"""Reading checkpoints: no file can run code, and none is trusted to be what it says.

safetensors holds nothing but tensors, and pickles are only loaded with torch's safe loading.
MMEngine reads local files through this module as well, so ``load_from``, ``--resume`` and
``init_cfg=dict(type='Pretrained')`` take ``.safetensors`` and ``gleam_mm://``.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from gleam_mm.checkpoint.adapter import as_state_dict, read_safetensors
from gleam_mm.checkpoint.files import (
    SCHEME,
    ZIP,
    CheckpointError,
    kind,
    require_file,
    resolve_path,
)
from gleam_mm.messages import listed

_PICKLE = b'\x80'  # how torch.save's files began before they were archives


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
    content = _read(path)
    state_dict = content.get('state_dict', content) if isinstance(content, Mapping) else content
    _check_state_dict(path, state_dict)
    return dict(state_dict)


def classes_of(path: str | Path) -> tuple[str, ...] | None:
    """The names of the classes that a checkpoint or an adapter was trained with.

    Args:
        path: As of :func:`read_state_dict`.

    Returns:
        The names; None where the file does not say them.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or may only be loaded unsafely.
    """
    content = _read(path)
    return classes_of_meta(content.get('meta')) if isinstance(content, Mapping) else None


def classes_of_meta(meta: Any) -> tuple[str, ...] | None:
    """The same of the ``meta`` of a checkpoint, whatever that is."""
    told = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    names = told.get('classes') if isinstance(told, Mapping) else None
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Reads a checkpoint for MMEngine. An adapter file becomes the checkpoint that it came from.

    Args:
        filename: As in :func:`~gleam_mm.checkpoint.resolve_path`.
        map_location: As in :func:`torch.load`.

    Returns:
        The content of the file; of a ``.safetensors`` file, ``{'state_dict': ..., 'meta': ...}``,
        where ``meta`` has the classes of an adapter as MMEngine's checkpoints have them.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or may only be loaded unsafely.
    """
    path = resolve_path(filename)
    content = _load(path, map_location)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: holds no checkpoint, but {kind(content)}')
    if 'state_dict' in content:
        _check_state_dict(path, content['state_dict'])
    if not isinstance(content.get('meta', {}), Mapping):
        raise CheckpointError(f"{path}: its 'meta' is {kind(content['meta'])}, not a mapping")
    return content


CheckpointLoader.register_scheme(prefixes=['', SCHEME], loader=load_from_local, force=True)


def _check_state_dict(path: str | Path, state_dict: Any) -> None:
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise CheckpointError(f'{path}: holds no weights, but {kind(state_dict)}')
    other = [key for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if other:
        raise CheckpointError(
            f'{path}: holds something else than weights: {listed(other)}; expected a state dict, '
            "or {'state_dict': ...}"
        )


def _read(path: str | Path) -> Any:
    """A file of this machine, or one that MMEngine knows how to get."""
    if '://' in str(path) and not str(path).startswith(SCHEME):
        try:
            return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
        except pickle.UnpicklingError as error:
            raise _refused(path, error) from error
    return _load(resolve_path(path))


def _load(path: Path, map_location: Any = 'cpu') -> Any:
    if path.suffix == '.safetensors':
        tensors, document = read_safetensors(path)
        meta = {}
        if document is not None:
            tensors = as_state_dict(tensors, document)
            if document.get('classes'):  # where MMPretrain's inferencers read them
                meta['dataset_meta'] = {'classes': tuple(document['classes'])}
        return {'state_dict': tensors, 'meta': meta}
    require_file(path)
    with path.open('rb') as file:
        start = file.read(2)
    if not start.startswith((ZIP, _PICKLE)):
        raise CheckpointError(
            f'{path}: no checkpoint. Expected a file made by torch.save or a .safetensors file; '
            'a download may have saved a web page or a Git LFS pointer instead'
        )
    try:
        if start == ZIP:
            _check_archive(path)
        content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        reason = str(error).partition('\n')[0].partition('. ')[0] or type(error).__name__
        raise CheckpointError(
            f'{path}: damaged or cut short ({reason}). Copy or download it again, or use another '
            'checkpoint'
        ) from error
    for name, tensor in _tensors(content, ''):
        held = tensor.untyped_storage().nbytes() // tensor.element_size()
        if tensor.numel() > held:  # a stride of 0, which costs memory when it is copied
            raise CheckpointError(
                f'{path}: {name} claims {tensor.numel():,} numbers and holds {held:,}; the file is '
                'damaged or crafted'
            )
    return content


def _check_archive(path: Path) -> None:
    """Reads the archive through, for torch.load does not look at the CRC-32 that each record has.

    Raises:
        zipfile.BadZipFile: A record is damaged, or compressed: memory could not hold it.
    """
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            stored = record.compress_type == zipfile.ZIP_STORED
            if not stored or record.file_size != record.compress_size:
                raise zipfile.BadZipFile(f'{record.filename} is compressed, as by no torch.save')
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f'{damaged} is not what its checksum was made of')


def _tensors(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """All plain tensors in nested containers, by where they are."""
    if type(content) in (Tensor, torch.nn.Parameter) and content.layout is torch.strided:
        yield name or 'it', content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f'{name}.{key}' if name else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _tensors(value, f'{name}.{index}')


def _refused(path: str | Path, error: Exception) -> CheckpointError:
    """What is said of a file that safe loading does not take."""
    return CheckpointError(
        f'{path}: refused, for it asks for {_asked_for(error)} when it is loaded. Only safe '
        'loading is done: a file may hold tensors, numbers, strings and containers of them. If '
        'you trust its source, convert it to .safetensors where it was made'
    )


def _asked_for(error: Exception) -> str:
    """The function or class that a pickle wants, taken from torch's message."""
    found = re.search(r'GLOBAL (getattr\(.*?\)|\S+)', str(error))
    return found[1] if found else 'more than torch.save writes for weights'
