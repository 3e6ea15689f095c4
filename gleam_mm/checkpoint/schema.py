"""What an adapter file may say about itself.

The metadata are data. They may come from anywhere, so that their shape is checked before anything
is done with them; what is built from their configs is decided by :mod:`gleam_mm.models.building`.
"""

import json
from typing import Any

from gleam_mm.checkpoint.files import CheckpointError, kind
from gleam_mm.checkpoint.identity import DESCRIBED, METHODS
from gleam_mm.checkpoint.packing import BITS
from gleam_mm.shapes import COUNT, MAPPING, SHA256, TEXT, Shape, dict_of, fields, list_of, optional

VERSION = 3
"""The version that is written.

Files from before the first release have none. Since 2 there are the preprocessing of pictures,
packed matrices, and the names of models that are no :class:`~gleam_mm.models.PETLClassifier`. Since
3 methods by name stand in the order in which they act. All of them are read.
"""

PRECISIONS = ('float16', 'bfloat16', 'float32', 'float64')
"""The types of numbers, as PyTorch calls them, that a model and its method may be in."""


def check(metadata: Any) -> dict[str, Any]:
    """Checks the metadata of an adapter file.

    Args:
        metadata: What the JSON document in the header of the file says.

    Returns:
        The same. What this version has no word for stays, and nothing is done with it.

    Raises:
        CheckpointError: It has another shape, or a config in it has NaN or Infinity, or a newer
            version wrote it. The message names the key.
    """
    if not isinstance(metadata, dict):
        raise CheckpointError(f'its metadata are {kind(metadata)} instead of a mapping')
    version = metadata.get('schema', 0)
    if not COUNT.fits(version):
        raise CheckpointError(f"its metadata's schema is {version!r} instead of a number")
    if version > VERSION:
        raise CheckpointError(
            f'its metadata have the schema {version}, and this release knows up to {VERSION}: '
            'update GLEAM-MM'
        )
    for key, shape in FIELDS.items():
        if key in metadata and not shape.fits(metadata[key]):
            raise CheckpointError(f"its metadata's {key} is not {shape.what}")
    for key in (*DESCRIBED, 'model', 'pipeline'):
        try:
            json.dumps(metadata.get(key), allow_nan=False)  # metrics alone may be NaN
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"its metadata's {key} is no JSON: {error}") from error
    if 'model' in metadata and 'method' not in metadata:
        raise CheckpointError('its metadata have a model and no method')
    return metadata


def sorted_methods(metadata: dict[str, Any]) -> list[str]:
    """The names of methods that act together, where the file may have them in another order.

    Args:
        metadata: Checked metadata.

    Returns:
        For each composition of methods by name, at any depth, the names in a line; those of methods
        within one another have the outer name before a dot.
    """
    if metadata.get('schema', 0) >= 3:
        return []
    found, ahead = [], [('', metadata.get('method'))]
    for prefix, method in ahead:  # which grows: a file may be deeper than Python recurses
        inner = method.get(METHODS) if isinstance(method, dict) else method
        if isinstance(inner, list):
            ahead += [(prefix, part) for part in inner]
        elif isinstance(inner, dict):
            ahead += [(f'{prefix}{name}.', part) for name, part in inner.items()]
            if len(inner) > 1:
                found.append(', '.join(prefix + name for name in inner))
    return found


def _is_method(value: Any) -> bool:
    return MAPPING.fits(value) or (list_of(MAPPING).fits(value) and len(value) > 0)


def _is_packed(value: Any) -> bool:
    return (
        MAPPING.fits(value)
        and list_of(COUNT).fits(value.get('shape'))
        and value.get('bits') in BITS
    )


def _is_metric(value: Any) -> bool:
    if isinstance(value, list):  # one number a class, or a matrix of them
        return all(map(_is_metric, value))
    return value is None or isinstance(value, int | float)


_CONFIG = Shape('a config, which is a mapping, or null', optional(MAPPING).fits)
_CLASS = Shape('a name', lambda value: isinstance(value, str | int | float))
_STEP = Shape('a transform', lambda value: MAPPING.fits(value) and TEXT.fits(value.get('type')))
_MODEL = fields({'library': TEXT, 'name': TEXT, 'options': MAPPING})
_PRECISION = Shape(
    ' or '.join(PRECISIONS), lambda value: isinstance(value, str) and value in PRECISIONS
)
_PACKED = Shape('the bits and the shape of a matrix', _is_packed)
_METRIC = Shape('a number', _is_metric)

FIELDS = {
    'method': Shape('the config of a method, or a list of them', _is_method),
    'backbone': _CONFIG,
    'neck': _CONFIG,
    'head': _CONFIG,
    'data_preprocessor': _CONFIG,
    'pipeline': Shape(
        'a list of transforms, each with its type, or null', optional(list_of(_STEP)).fits
    ),
    'model': Shape(
        "a mapping with the library, the model's name there and its options", optional(_MODEL).fits
    ),
    'precision': Shape(
        "a mapping with the types of most of the model's numbers, and of the method's",
        fields({'model': _PRECISION, 'method': _PRECISION}).fits,
    ),
    'backbone_fingerprint': SHA256,
    'classes': Shape('a list of names, or null', optional(list_of(_CLASS)).fits),
    'packed': Shape('a mapping of matrices to their bits and shapes', dict_of(_PACKED).fits),
    'epoch': Shape('a number of epochs', COUNT.fits),
    'iter': Shape('a number of iterations', COUNT.fits),
    'metrics': Shape(
        'a mapping of splits to mappings of names to numbers', dict_of(dict_of(_METRIC)).fits
    ),
    'versions': Shape('a mapping of packages to versions', dict_of(TEXT).fits),
}
"""Key -> the shape of its value."""
