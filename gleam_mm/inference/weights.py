"""Where the weights of the backbone are that an adapter was trained on, and does not have."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gleam_mm.checkpoint import SCHEME, resolve_path
from gleam_mm.checkpoint.sources import how_to_fetch
from gleam_mm.models import timm_models

WEIGHTS_VARIABLE = 'GLEAM_WEIGHTS'


def find(weights: str | Path | None, name: str | None) -> Path | None:
    """The weights that the caller gives, or the environment; None if neither does.

    Args:
        weights: What the caller gives.
        name: The file's name, which is looked for where the environment names a folder.
    """
    given = weights or os.environ.get(WEIGHTS_VARIABLE)
    if not given:
        return None
    path = Path(given).expanduser()
    if weights is None and path.is_dir():  # which may have those of other backbones
        inside = path / Path(name or '').name
        return inside if name and inside.is_file() else None
    return path


def options(
    backbone: Mapping[str, Any] | None, who: object, weights: str | Path | None
) -> dict[str, Any]:
    """The overrides with which a config builds its backbone from the weights that are there.

    Args:
        backbone: The config of the backbone, whose ``init_cfg`` may name a file.
        who: Who needs the weights, for the message.
        weights: A file that takes the place of the one that is named.

    Returns:
        Options of a config. Where no file is named, the backbone is drawn from its seed.

    Raises:
        FileNotFoundError: The weights are nowhere.
    """
    named = (backbone or {}).get('init_cfg')
    named = named.get('checkpoint') if isinstance(named, Mapping) else None
    if not isinstance(named, str) and weights is None:
        return {'model.allow_random_backbone': True}
    found = find(weights, None if named is None or named.startswith(SCHEME) else named) or named
    if not resolve_path(found).is_file():
        raise nowhere(who, str(found), how_to_fetch(found))
    if str(found) == named:
        return {}
    changed = {'model.backbone.init_cfg.checkpoint': str(found)}
    if named is None:
        changed['model.backbone.init_cfg.type'] = 'Pretrained'
    return changed


def of_timm(described: Mapping[str, Any], who: object, weights: str | Path | None) -> Path:
    """The weights of a model of timm: what the caller or the environment gives, or the published.

    Args:
        described: What an adapter says of the model.
        who: Who needs the weights, for the message.
        weights: What the caller gives.

    Raises:
        FileNotFoundError: The weights are nowhere.
    """
    found = find(weights, f'{described["name"]}.safetensors')
    found = found or timm_models.cached_weights(described)
    if found is None:
        raise nowhere(who, f'the weights of {described["name"]}')
    return found


def nowhere(who: object, what: str, fetching: str = '') -> FileNotFoundError:
    """The error that says how to tell where weights are, and before that how they are fetched."""
    return FileNotFoundError(
        f"{who}: the backbone's weights are not there ({what}): {fetching}say where they "
        f'are with weights= (--weights), or with {WEIGHTS_VARIABLE}, a file or a folder'
    )
