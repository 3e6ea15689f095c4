"""Pretrained weights, loaded into a backbone in full or not at all."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gleam_mm.checkpoint.files import CheckpointError, names
from gleam_mm.checkpoint.reading import read_state_dict


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str = '') -> None:
    """Loads pretrained weights into a backbone, strictly.

    The module's own hooks come first, such as those with which MMPretrain's ViT interpolates
    position embeddings. Half-precision weights are converted to the type of the backbone.

    Args:
        backbone: The backbone; changed in place.
        path: As in :func:`~gleam_mm.checkpoint.read_state_dict`.
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
            f"{path}: no key begins with '{prefix}'; it has {names(sorted(tensors))}. Set "
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
            f'{names(missing)}. Not in the backbone: {names(unexpected)}.'
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
