"""Pretrained weights, loaded into a backbone in full or not at all."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gleam_mm.checkpoint.files import CheckpointError
from gleam_mm.checkpoint.reading import read_state_dict
from gleam_mm.checkpoint.sources import how_to_fetch
from gleam_mm.messages import listed

_WINDOW_INDEX = 'relative_position_index'  # a buffer of attention in windows


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
            f"{path}: the backbone's pretrained weights are not there; {how_to_fetch(path)}put "
            'them there, or say where they are with model.backbone.init_cfg.checkpoint'
        ) from error
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    own = _under(prefix, tensors)
    if not own:
        raise CheckpointError(
            f"{path}: no key begins with '{prefix}'; it has {listed(sorted(tensors))}. Set "
            '`prefix` of init_cfg to what the keys of the backbone begin with'
        )
    # Of another size of windows, MMPretrain takes the index out, which follows from the size.
    index = {
        key: value for key, value in backbone.state_dict().items() if key.endswith(_WINDOW_INDEX)
    }
    try:
        missing, unexpected = backbone.load_state_dict({**own, **index}, strict=False)
    except RuntimeError as error:  # shapes, one a line
        shapes = '; '.join(line.strip() for line in str(error).splitlines()[1:]) or error
        raise CheckpointError(
            f'{path}: does not fit {type(backbone).__name__}: {shapes}'
        ) from error
    missing = [key for key in missing if key not in index]
    if missing or unexpected:
        raise CheckpointError(
            f'{path}: its keys are not those of {type(backbone).__name__}. Missing in the file: '
            f'{listed(missing)}. Not in the backbone: {listed(unexpected)}.'
            f'{_prefix_hint(tensors, backbone, prefix)}'
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): value for k, value in tensors.items() if k.startswith(prefix)}


def _prefix_hint(tensors: Mapping[str, Tensor], backbone: nn.Module, prefix: str) -> str:
    """Names the prefix with which the file has most of the backbone's keys, if that is another."""
    keys = backbone.state_dict().keys()
    starts = dict.fromkeys(key[:i] for key in tensors for i in _starts(key))
    best = max(starts, key=lambda start: len(keys & _under(start, tensors).keys()))
    if best == prefix:
        return ' The file must have the key names and the architecture of the config.'
    return f" Did you mean prefix='{best}'?"


def _starts(key: str) -> list[int]:
    """Where a name begins in a key: at its start, and behind each dot."""
    return [0, *(index + 1 for index, letter in enumerate(key) if letter == '.')]
