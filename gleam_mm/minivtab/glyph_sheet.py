"""The letters of MiniVTAB: a sheet of glyph bitmaps, and the script that made it.

Fonts are rasterised by libraries whose output changes with their versions, so the package ships the
bitmaps: ``glyphs.png``, a row for each font and a column for each of A-Z and a-z. The fonts are
those that Matplotlib carries (DejaVu, STIX, Computer Modern), all free to use. To make it again:

    python -m gleam_mm.minivtab.glyph_sheet glyphs.png
"""

import string
import sys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

CELL = 24  # pixels a side
LETTERS = string.ascii_uppercase + string.ascii_lowercase
FONTS = (
    'DejaVuSans',
    'DejaVuSans-Bold',
    'DejaVuSans-Oblique',
    'DejaVuSansMono',
    'DejaVuSerif',
    'DejaVuSerif-Bold',
    'DejaVuSerif-Italic',
    'STIXGeneral',
    'STIXGeneralBol',
    'STIXGeneralItalic',
    'STIXGeneralBolIta',
    'cmr10',
    'cmb10',
    'cmss10',
    'cmtt10',
    'cmti10',
)
_FILE = Path(__file__).with_name('glyphs.png')
_FINE = 8  # a pixel of the sheet averages this many squared


@cache
def glyphs() -> np.ndarray:
    """Ink, uint8 ``(fonts, letters, CELL, CELL)``; letters are A-Z, then a-z."""
    with Image.open(_FILE) as image:
        sheet = np.asarray(image.convert('L'))
    return sheet.reshape(len(FONTS), CELL, len(LETTERS), CELL).transpose(0, 2, 1, 3)


def draw_sheet() -> Image.Image:
    """Rasterises every letter in every font, centred, the longer side of a glyph 20 pixels."""
    from matplotlib import get_data_path
    from PIL import ImageDraw, ImageFont

    side, reach = CELL * _FINE, (CELL - 4) * _FINE
    sheet = Image.new('L', (len(LETTERS) * CELL, len(FONTS) * CELL))
    for row, name in enumerate(FONTS):
        file = str(Path(get_data_path()) / 'fonts' / 'ttf' / f'{name}.ttf')
        trial = ImageFont.truetype(file, side)
        for column, letter in enumerate(LETTERS):
            left, top, right, bottom = trial.getbbox(letter)
            size = round(side * reach / max(right - left, bottom - top))
            font = ImageFont.truetype(file, size)
            left, top, right, bottom = font.getbbox(letter)
            cell = Image.new('L', (side, side))
            corner = ((side - left - right) // 2, (side - top - bottom) // 2)
            ImageDraw.Draw(cell).text(corner, letter, fill=255, font=font)
            sheet.paste(cell.reduce(_FINE), (column * CELL, row * CELL))
    return sheet


if __name__ == '__main__':
    draw_sheet().save(sys.argv[1], optimize=True)
