"""Words that messages share, at the very bottom: the nearest of some names."""

import difflib
from collections.abc import Iterable


def closest(name: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Those of some names that are the most alike to another one, the nearest first.

    A single one has to be rather alike; of several, the reader chooses.
    """
    return difflib.get_close_matches(name, list(names), most, cutoff=0.6 if most == 1 else 0.4)


def hint_at(name: str, known: Iterable[str], most: int = 1) -> str:
    """`` (did you mean 'rank'?)`` for a name that is nearly a known one, or nothing."""
    near = closest(name, known, most)
    return f' (did you mean {" or ".join(map(repr, near))}?)' if near else ''
