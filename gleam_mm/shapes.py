"""The shape of data that come out of a file or a database; at the bottom, for all that read some.

A file may come from anybody. What it says is compared with a closed set of keys, and with the type
of each, before anything is done with it.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from gleam_mm.messages import shown


class Shape(NamedTuple):
    """What a value has to be.

    Attributes:
        what: In words, with an article.
        fits: Whether a value is that.
    """

    what: str
    fits: Callable[[Any], bool]


def optional(shape: Shape) -> Shape:
    """The shape, or None."""
    return Shape(f'{shape.what} or null', lambda value: value is None or shape.fits(value))


def matching(what: str, pattern: str) -> Shape:
    """A text that a regular expression matches as a whole."""
    return Shape(what, lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)))


def list_of(shape: Shape) -> Shape:
    """A list of which every item has the shape."""
    return Shape(
        f'a list, each of it {shape.what}',
        lambda value: isinstance(value, list) and all(map(shape.fits, value)),
    )


def dict_of(shape: Shape) -> Shape:
    """A mapping of texts to values of the shape."""
    return Shape(
        f'a mapping of texts, each to {shape.what}',
        lambda value: (
            isinstance(value, dict)
            and all(isinstance(key, str) and shape.fits(inner) for key, inner in value.items())
        ),
    )


def fields(shapes: Mapping[str, Shape], least: Collection[str] | None = None) -> Shape:
    """A mapping with these keys and no others.

    Args:
        shapes: The shape of each key.
        least: The keys that must be there; None for all of them.
    """
    needed = set(shapes if least is None else least)
    return Shape(
        f'a mapping with {", ".join(shapes)}',
        lambda value: (
            isinstance(value, dict)
            and needed <= value.keys() <= shapes.keys()
            and all(shapes[key].fits(inner) for key, inner in value.items())
        ),
    )


def check(found: Any, shapes: Mapping[str, Shape], least: Collection[str] | None = None) -> dict:
    """Compares a mapping with the shapes of its keys.

    Args:
        found: What was read.
        shapes: The shape of each key; there may be no others.
        least: The keys that must be there; None for all of them.

    Returns:
        The same.

    Raises:
        ValueError: It has another shape. The message names the key.
    """
    if not isinstance(found, dict):
        raise ValueError(f'expected a mapping with {", ".join(shapes)}, found {shown(found)}')
    for key in shapes if least is None else least:
        if key not in found:
            raise ValueError(f'{key} is missing')
    for key, value in found.items():
        if key not in shapes:
            raise ValueError(f'{shown(key)} is no key of it')
        if not shapes[key].fits(value):
            raise ValueError(f'{key} is {shown(value)}, expected {shapes[key].what}')
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


COUNT = Shape(
    'a whole number, at least 0',
    lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
)
POSITIVE = Shape('a whole number, at least 1', lambda value: COUNT.fits(value) and value > 0)
NUMBER = Shape('a finite number', _is_number)
TEXT = Shape('a text', lambda value: isinstance(value, str))
TRUTH = Shape('true or false', lambda value: isinstance(value, bool))
MAPPING = Shape('a mapping', lambda value: isinstance(value, dict))
SHA256 = matching('a SHA-256 in hexadecimal', '[0-9a-f]{64}')
