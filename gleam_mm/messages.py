"""Words that messages share, at the very bottom: near names, and lists and values cut short."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


def closest(name: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Those of some names that are the most alike to another one, the nearest first.

    A single one has to be rather alike; of several, the reader chooses. Capitals count for nothing.
    """
    spelt = {known.lower(): known for known in names}
    cutoff = 0.6 if most == 1 else 0.4
    return [spelt[near] for near in difflib.get_close_matches(name.lower(), spelt, most, cutoff)]


def hint_at(name: str, known: Iterable[str], most: int = 1) -> str:
    """`` (did you mean 'rank'?)`` for a name that is nearly a known one, or nothing."""
    near = closest(name, known, most)
    return f' (did you mean {" or ".join(map(repr, near))}?)' if near else ''


def listed(names: Sequence[Any], most: int = 5) -> str:
    """The first of some names, and how many more there are: ``a, b and 7 more``."""
    if not names:
        return 'none'
    rest = len(names) - most
    return ', '.join(map(str, names[:most])) + (f' and {rest:,} more' if rest > 0 else '')


def shown(value: Any, most: int = 80) -> str:
    """A value as Python writes it, in one line and no longer than a message can be."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= most else f'{text[: most - 3]}...'
