"""What an adapter file may say about itself.

The metadata are data. They may come from anywhere, so that their shape is checked before anything
is done with them; what is built from their configs is decided by :mod:`gleam_mm.models.building`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from gleam_mm.checkpoint.files import CheckpointError, kind
from gleam_mm.checkpoint.packing import BITS

VERSION = 2
"""The version that is written.

Files of release 0.1.0 have none. Since 2 there are the preprocessing of pictures, packed matrices,
and the names of models that are no :class:`~gleam_mm.models.PETLClassifier`. All of them are read.
"""


def check(metadata: Any) -> dict[str, Any]:
    """Checks the metadata of an adapter file.

    Args:
        metadata: What the JSON document in the header of the file says.

    Returns:
        The same. What this version has no word for stays, and nothing is done with it.

    Raises:
        CheckpointError: It has another shape, or a newer version wrote it. The message names the
            key.
    """
    if not isinstance(metadata, dict):
        raise CheckpointError(f'its metadata are {kind(metadata)} instead of a mapping')
    version = metadata.get('schema', 0)
    if not is_count(version):
        raise CheckpointError(f"its metadata's schema is {version!r} instead of a number")
    if version > VERSION:
        raise CheckpointError(
            f'its metadata have the schema {version}, and this release knows up to {VERSION}: '
            'update GLEAM-MM'
        )
    for key, (what, fits) in FIELDS.items():
        if key in metadata and not fits(metadata[key]):
            raise CheckpointError(f"its metadata's {key} is not {what}")
    return metadata


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_config(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _is_method(value: Any) -> bool:
    several = isinstance(value, list) and value and all(isinstance(part, dict) for part in value)
    return isinstance(value, dict) or bool(several)


def _is_pipeline(value: Any) -> bool:
    steps = value is None or isinstance(value, list)
    return steps and all(
        isinstance(step, dict) and isinstance(step.get('type'), str) for step in value or ()
    )


def _is_model(value: Any) -> bool:
    if value is None:
        return True
    keys = isinstance(value, dict) and value.keys() == {'library', 'name', 'options'}
    return keys and isinstance(value['name'], str) and isinstance(value['options'], dict)


def is_sha256(value: Any) -> bool:
    """Whether a value is a SHA-256 in hexadecimal."""
    return isinstance(value, str) and re.fullmatch('[0-9a-f]{64}', value) is not None


def _is_classes(value: Any) -> bool:
    names = value is None or isinstance(value, list)
    return names and all(isinstance(name, str | int | float) for name in value or ())


def _is_mapping_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(map(fits, value.values()))


def _is_form(value: Any) -> bool:
    shape = value.get('shape') if isinstance(value, Mapping) else None
    return isinstance(shape, list) and all(map(is_count, shape)) and value.get('bits') in BITS


def _is_metric(value: Any) -> bool:
    if isinstance(value, list):  # one number a class, or a matrix of them
        return all(map(_is_metric, value))
    return value is None or isinstance(value, int | float)


_CONFIG = ('a config, which is a mapping, or null', _is_config)
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    'method': ('the config of a method, or a list of them', _is_method),
    'backbone': _CONFIG,
    'neck': _CONFIG,
    'head': _CONFIG,
    'data_preprocessor': _CONFIG,
    'pipeline': ('a list of transforms, each with its type, or null', _is_pipeline),
    'model': ("a mapping with the library, the model's name there and its options", _is_model),
    'backbone_fingerprint': ('a SHA-256 in hexadecimal', is_sha256),
    'classes': ('a list of names, or null', _is_classes),
    'packed': ('a mapping of matrices to their bits and shapes', _is_mapping_of(_is_form)),
    'epoch': ('a number of epochs', is_count),
    'iter': ('a number of iterations', is_count),
    'metrics': (
        'a mapping of splits to mappings of names to numbers',
        _is_mapping_of(_is_mapping_of(_is_metric)),
    ),
    'versions': (
        'a mapping of packages to versions',
        _is_mapping_of(lambda value: isinstance(value, str)),
    ),
}
"""Key -> what messages call its value, and whether a value is one."""
