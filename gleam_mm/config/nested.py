"""The dicts that a config is made of, however deep."""

from collections.abc import Iterator
from typing import Any


def dicts_in(value: Any, key: str = '') -> Iterator[tuple[str, dict]]:
    """All dicts of a config, the outer ones first, with the keys that lead to them.

    Args:
        value: The config or a part of it; values of a dict may be changed in place in between.
        key: What the keys begin with: nothing, or ``model.``.
    """
    if isinstance(value, dict):
        yield key, value
        for name, inner in value.items():
            yield from dicts_in(inner, f'{key}{name}.')
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from dicts_in(inner, f'{key}{index}.')
