"""Draws examples of every task of MiniVTAB into one picture, as `docs/minivtab.md` shows:

python -m gleam_mm.minivtab.contact_sheet docs/minivtab.png
"""

import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gleam_mm.minivtab.tasks import MINI_TASKS, draw, load

_COLUMNS, _SCALE, _MARGIN, _GAP = 14, 2, 150, 6


def contact_sheet(size: int = 32) -> Image.Image:
    """A row for each task: its first images, one of each class in turn."""
    side = size * _SCALE
    width, height = _MARGIN + _COLUMNS * side, len(MINI_TASKS) * (side + _GAP)
    sheet = Image.new('RGB', (width, height), 'white')
    pen = ImageDraw.Draw(sheet)
    title, note = ImageFont.load_default(16), ImageFont.load_default(11)
    for row, (name, task) in enumerate(MINI_TASKS.items()):
        top = row * (side + _GAP)
        pen.text((4, top + 12), name, fill='black', font=title)
        pen.text((4, top + 34), f'{task.group}, {task.num_classes} classes', fill='grey', font=note)
        first = np.arange(_COLUMNS)
        images = load(name, size)[0][first] if name == 'digits' else draw(name, size, first)
        for column, image in enumerate(images):
            tile = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (_MARGIN + column * side, top))
    return sheet


if __name__ == '__main__':
    contact_sheet().save(sys.argv[1], optimize=True)
