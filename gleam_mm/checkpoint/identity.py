"""What a model says of itself in its state dict: its frozen weights' fingerprint, and its options.

Both travel as one tensor of bytes under :data:`FINGERPRINT`, so that a checkpoint holds nothing but
tensors: 32 bytes of fingerprint, then the options as JSON. Files from before the first release have
the fingerprint alone.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gleam_mm.checkpoint.files import CheckpointError

FINGERPRINT = '_extra_state'
"""The key, which is where PyTorch puts what ``get_extra_state()`` gives."""

DESCRIBED = ('method', 'backbone', 'neck', 'head', 'data_preprocessor')
"""The parts of a model whose configs a file holds."""

METHODS = 'methods'
"""The key of methods by name, which act in the order in which they stand."""

_SIZE = 32


def in_order(value: Any, key: str = '') -> Any:
    """The same with sorted keys, so that what is equal is written alike, but for methods by name.

    Args:
        value: What is to be written as JSON.
        key: Where it stands.
    """
    if isinstance(value, Mapping):
        names = value if key == METHODS else sorted(value)
        return {name: in_order(value[name], name) for name in names}
    return [in_order(item) for item in value] if isinstance(value, list | tuple) else value


def pack(fingerprint: str, description: Mapping[str, Any] | None = None) -> Tensor:
    """Makes the tensor.

    Args:
        fingerprint: Hexadecimal, or empty where a file has none.
        description: Configs of the parts, by their name in :data:`DESCRIBED`.

    Returns:
        Bytes, as uint8.
    """
    data = bytes.fromhex(fingerprint)
    if fingerprint and description:
        data += json.dumps(in_order(description), allow_nan=False).encode()
    return torch.tensor(list(data), dtype=torch.uint8)


def unpack(state: Any) -> tuple[str, dict[str, Any]]:
    """Reads the tensor.

    Returns:
        The fingerprint, and the configs of the parts as far as the file has them.

    Raises:
        CheckpointError: It is something else.
    """
    if not isinstance(state, Tensor) or state.dtype != torch.uint8 or state.ndim != 1:
        raise CheckpointError(f'{FINGERPRINT} holds no fingerprint of a backbone')
    data = bytes(state.tolist())
    try:
        description = json.loads(data[_SIZE:]) if len(data) > _SIZE else {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f'{FINGERPRINT} is damaged: the options of the model are no JSON ({error})'
        ) from error
    if not isinstance(description, dict):
        raise CheckpointError(f'{FINGERPRINT} is damaged: the options of the model are no mapping')
    return data[:_SIZE].hex(), description
