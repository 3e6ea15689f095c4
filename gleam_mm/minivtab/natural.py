"""MiniVTAB's natural group: what is told apart by its look. Digits, textures, letters."""

import numpy as np

from gleam_mm.minivtab.canvas import (
    Draws,
    broad,
    cover,
    fractal,
    grid,
    length,
    light,
    mix,
    rotate,
    sin,
    step,
    to_segment,
    two_colours,
    voronoi,
    warp,
)
from gleam_mm.minivtab.glyph_sheet import CELL, FONTS, glyphs

DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
LETTERS = tuple('abcdefghijklmnopqrstuvwxyz')


def load_digits(img_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's handwritten digits: white on black, 17 grey levels."""
    from sklearn.datasets import load_digits  # takes a second to import

    data = load_digits()
    grey = np.clip(_enlarge(data.images * 255 / 16, img_size), 0, 255)
    images = np.repeat(np.floor(grey + 0.5).astype(np.uint8)[..., None], 3, axis=-1)
    return images, data.target.astype(np.int64)


def _enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Cubic interpolation of ``(N, h, h)`` to ``(N, size, size)``, in float64.

    At a power of two the weights are dyadic fractions, so that the result is exact and its
    checksum the same on every machine.
    """
    old = images.shape[-1]
    position = (np.arange(size) + 0.5) * old / size - 0.5
    left = np.floor(position).astype(int)
    t = position - left
    # Keys' kernel with a = -1/2, for the neighbours at -1, 0, 1 and 2.
    weights = np.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ]
    )
    matrix = np.zeros((size, old))
    for shift, weight in zip(range(-1, 3), weights, strict=True):
        np.add.at(matrix, (np.arange(size), np.clip(left + shift, 0, old - 1)), weight)
    return matrix @ images @ matrix.T


def draw_letters(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """A capital letter in one of 16 fonts, distorted, often with neighbours that intrude.

    The neighbours are letters too; the class is that of the one in the middle.
    """
    x, y = grid(size)
    fonts = u.integer(len(FONTS))
    ink = _letter(u, x, y, fonts, labels, u.uniform(-0.1, 0.1), u.uniform(0.6, 0.85))
    for side in (-1, 1):
        letter = u.integer(26)
        other = _letter(u, x, y, fonts, letter, side * u.uniform(0.85, 1.15), u.uniform(0.6, 0.85))
        ink = np.maximum(ink, other * broad(np.where(u.chance(0.4), 1.0, 0.0)))
    back, front = two_colours(u, 0.35, 0.8)
    image = mix(back + light(u, x, y, 0.3), front, ink)
    # A stroke across, as of a pen.
    start, end = u.uniform(-1.2, 1.2, (2, 2)).swapaxes(0, 1)
    line, _ = to_segment(x, y, start, end)
    colour = u.uniform(size=(3,))[:, None, None]
    seen = cover(line - 0.03, 0.06) * broad(np.where(u.chance(0.4), u.uniform(0.3, 0.8), 0.0))
    image = mix(image, colour, seen)
    return image + broad(u.uniform(0.0, 0.12), 3) * u.grain(size)


def _letter(
    u: Draws,
    x: np.ndarray,
    y: np.ndarray,
    fonts: np.ndarray,
    letters: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """Ink, 0 to 1, of one letter an image, turned, sheared, stretched and bent."""
    a, b = rotate(x - broad(centre), y - broad(u.uniform(-0.1, 0.1)), broad(u.uniform(-0.05, 0.05)))
    a, b = warp(u, a, b, u.uniform(0, 0.12))
    a = (a + broad(u.uniform(-0.25, 0.25)) * b) / broad(scale * u.uniform(0.7, 1.1))
    b = b / broad(scale * u.uniform(0.8, 1.2))
    cells = glyphs()[fonts, letters].astype(np.float64) / 255
    # Bilinear; the rim of a cell is empty.
    column = np.clip((a + 1) * (CELL / 2) - 0.5, 0, CELL - 1)
    row = np.clip((b + 1) * (CELL / 2) - 0.5, 0, CELL - 1)
    left, top = np.minimum(np.floor(column), CELL - 2), np.minimum(np.floor(row), CELL - 2)
    s, t = column - left, row - top
    i, j = top.astype(np.int64), left.astype(np.int64)
    n = np.arange(len(cells))[:, None, None]
    upper = cells[n, i, j] * (1 - s) + cells[n, i, j + 1] * s
    lower = cells[n, i + 1, j] * (1 - s) + cells[n, i + 1, j + 1] * s
    return upper * (1 - t) + lower * t


TEXTURES = (
    'banded',
    'chequered',
    'dotted',
    'woven',
    'cracked',
    'marbled',
    'gridded',
    'zigzagged',
    'scaly',
    'bubbly',
    'cloudy',
    'speckled',
)


def draw_textures(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """A texture of any scale, direction, colour and contrast, bent and worn."""
    x, y = grid(size)
    a, b = warp(u, x, y, u.uniform(0.0, 0.22))
    a, b = rotate(a, b, broad(u.uniform()))
    value = np.empty((len(labels), size, size))
    kinds = (
        _banded,
        _chequered,
        _dotted,
        _woven,
        _cracked,
        _marbled,
        _gridded,
        _zigzagged,
        _scaly,
        _bubbly,
        _cloudy,
        _speckled,
    )
    for label, kind in enumerate(kinds):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            value[rows] = kind(u.take(rows), a[rows], b[rows])
    # Wear: the pattern fades here and there.
    wear = np.clip(0.6 + fractal(u, x, y, (3, 6)), 0, 1)
    value = 0.5 + (value - 0.5) * (1 - broad(u.uniform(0.0, 0.6)) * wear)
    back, front = two_colours(u, 0.3, 0.8)
    image = mix(back, front, value) + light(u, x, y, 0.3)
    return image + broad(u.uniform(0.0, 0.15), 3) * u.grain(size)


def _cells(
    u: Draws, a: np.ndarray, b: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, ...]:
    """Coordinates in units of a pattern's period; a side of the image has ``low`` to ``high``."""
    rate = broad(u.harmonic(low, high)) / 2
    return a * rate + broad(u.uniform()), b * rate + broad(u.uniform())


def _fraction(a: np.ndarray) -> np.ndarray:
    """The place within a period, -1/2 to 1/2."""
    return a - np.floor(a + 0.5)


def _banded(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, _ = _cells(u, a, b, 2.5, 9)
    return step(broad(u.uniform(1, 4)) * (sin(a) + broad(u.uniform(-0.4, 0.4))))


def _chequered(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _cells(u, a, b, 2, 6)
    return step(broad(u.uniform(2, 6)) * sin(a) * sin(b))


def _dotted(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _cells(u, a, b, 2.5, 7)
    a = a + 0.5 * np.floor(b + 0.5) * broad(u.integer(2))
    distance = length(_fraction(a), _fraction(b))
    return cover(distance - broad(u.uniform(0.18, 0.38)), 0.15)


def _woven(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _cells(u, a, b, 2.5, 6)
    odd = np.floor(a + 0.5) + np.floor(b + 0.5)
    odd = odd - 2 * np.floor(odd / 2)
    fa, fb = _fraction(a), _fraction(b)
    along, across = np.where(odd > 0.5, fa, fb), np.where(odd > 0.5, fb, fa)
    return np.clip(1 - 3.2 * across * across - broad(u.uniform(0, 2)) * along * along, 0, 1)


def _cracked(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    first, second, _ = voronoi(a, b, u.uniform(-1.4, 1.4, (26, 2)))
    return step((second - first - broad(u.uniform(0.06, 0.14))) / 0.07)


def _marbled(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bend = fractal(u, a, b, (3, 5, 9), 0.6)
    return 0.5 + 0.5 * sin(a * broad(u.uniform(0.8, 2)) + bend * broad(u.uniform(0.5, 1)))


def _gridded(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _cells(u, a, b, 2.5, 7)
    line = np.minimum(np.abs(_fraction(a)), np.abs(_fraction(b)))
    return cover(line - broad(u.uniform(0.06, 0.16)), 0.12)


def _zigzagged(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _cells(u, a, b, 2, 5)
    tooth = np.abs(_fraction(a)) * broad(u.uniform(0.9, 1.8))
    return step(broad(u.uniform(1, 4)) * sin(b * broad(u.uniform(0.9, 1.5)) + tooth))


def _scaly(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _cells(u, a, b, 2.5, 6)
    row = np.floor(b)
    shade = np.zeros(a.shape)
    for above in (1, 0):  # a scale hides the lower end of those of the row above
        shift = row - above
        half = shift - 2 * np.floor(shift / 2)
        fa, fb = _fraction(a + 0.5 * half), (b - row + above) * 0.8
        radius = length(fa, fb) / 0.62
        shade = np.where(radius < 1, np.clip(1.15 - radius * radius, 0, 1), shade)
    return shade


def _bubbly(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    value = np.zeros(a.shape)
    places, radii = u.uniform(-1.3, 1.3, (16, 2)), u.uniform(0.12, 0.4, (16,))
    for k in range(16):
        distance = length(a - broad(places[:, k, 0]), b - broad(places[:, k, 1]))
        ring = cover(np.abs(distance - broad(radii[:, k])) - 0.03, 0.07)
        value = np.maximum(value * (1 - 0.7 * cover(distance - broad(radii[:, k]), 0.05)), ring)
    return value


def _cloudy(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 0.7 * fractal(u, a, b, (4, 8, 14), 0.7), 0, 1)


def _speckled(u: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    first, _, nearest = voronoi(a, b, u.uniform(-1.3, 1.3, (30, 2)))
    radii = u.uniform(0.04, 0.16, (30,))
    own = radii[np.arange(len(radii))[:, None, None], nearest]
    return cover(first - own, 0.06)
