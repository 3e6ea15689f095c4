"""The map of methods, as the tables of ``docs/methods.md``, its one source, have it."""

from pathlib import Path
from typing import NamedTuple

from gleam_mm.config.recipes import RecipeError

_PAGE = Path(__file__).parents[1] / '.mim' / 'methods.md'  # a link to docs/methods.md in a checkout


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
