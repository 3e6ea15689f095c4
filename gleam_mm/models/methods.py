"""The map of methods: the tables of ``docs/methods.md``, which is its one source."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from gleam_mm.config.recipes import RecipeError
from gleam_mm.output.tables import text

_PAGE = Path(__file__).parents[1] / '.mim' / 'methods.md'  # a link to docs/methods.md in a checkout

Order = Literal['family', 'preset', 'parameters', 'accuracy', 'merges', 'cost']


class Entry(NamedTuple):
    """What the map says of a preset.

    Attributes:
        preset: Its name.
        method: The class, with what is set.
        equation: What it does.
        parameters: What it trains on ViT-B/16, without the head.
        accuracy: Mean accuracy on VTAB-1K as published, with a letter for the source; or nothing.
        merges: ``yes``, ``no`` or what of it does.
        cost: GFLOPs of an image beside those of the backbone, where it is merged if it can be.
        when: What it is for.
        family: The section of the page.
    """

    preset: str
    method: str
    equation: str
    parameters: int
    accuracy: str
    merges: str
    cost: float
    when: str
    family: str


_ORDERS: dict[str, Callable[[Entry], object]] = {
    'family': lambda entry: 0,  # as on the page
    'preset': lambda entry: entry.preset,
    'parameters': lambda entry: entry.parameters,
    'accuracy': lambda entry: -_leading_number(entry.accuracy),
    'merges': lambda entry: entry.merges != 'yes',
    'cost': lambda entry: entry.cost,
}


def entries() -> list[Entry]:
    """The presets in the order of the page.

    Raises:
        RecipeError: The page is not there.
    """
    if not _PAGE.is_file():
        raise RecipeError(f'{_PAGE} is missing: install GLEAM-MM again')
    found, family = [], ''
    for line in _PAGE.read_text(encoding='utf-8').splitlines():
        if line.startswith('## '):
            family = line.removeprefix('## ')
        elif line.startswith('| `'):
            cells = [cell.strip().strip('`') for cell in line.strip().strip('|').split('|')]
            preset, method, equation, parameters, accuracy, merges, cost, when = cells
            count = int(parameters.replace(',', ''))
            found.append(
                Entry(preset, method, equation, count, accuracy, merges, float(cost), when, family)
            )
    return found


def listing(order: Order = 'family') -> str:
    """The map as a table for a terminal.

    Args:
        order: What its rows are sorted by. Accuracies begin with the best one.
    """
    head = ['preset', 'parameters', 'VTAB-1K', 'merges', '+GFLOPs', 'family', 'equation']
    rows = [
        [
            entry.preset,
            f'{entry.parameters:,}',
            entry.accuracy,
            entry.merges,
            f'{entry.cost:g}',
            entry.family,
            entry.equation,
        ]
        for entry in sorted(entries(), key=_ORDERS[order])  # type: ignore[arg-type]
    ]
    return text(head, rows, left=('preset', 'VTAB-1K', 'merges', 'family', 'equation'))


def _leading_number(accuracy: str) -> float:
    number = re.match(r'[\d.]+', accuracy)
    return float(number.group()) if number else -1.0
