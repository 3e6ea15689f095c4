"""MiniVTAB's structured group: what must be measured. Count, distance, orientation."""

import numpy as np

from gleam_mm.minivtab.canvas import (
    Draws,
    box,
    broad,
    cover,
    fractal,
    grid,
    length,
    light,
    mix,
    polygon,
    rotate,
    to_segment,
    two_colours,
)

COUNT = tuple(str(number) for number in range(1, 9))


def draw_count(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """One to eight things of any shapes, sizes and colours that do not overlap.

    Sizes vary within an image and between images, so that the area tells little about the count.
    """
    x, y = grid(size)
    image, back = _backdrop(u, x, y)
    # Distinct cells of a 4 x 4 lattice.
    cells = u.permutation(16)[:, :8]
    rows, columns = cells // 4, cells % 4
    middle_x = (columns - 1.5) * 0.46 + u.uniform(-0.06, 0.06, (8,))
    middle_y = (rows - 1.5) * 0.46 + u.uniform(-0.06, 0.06, (8,))
    base = u.uniform(0.13, 0.2)
    for k in range(8):
        rows = np.flatnonzero(labels >= k)
        own = u.take(rows)
        a, b = x - broad(middle_x[rows, k]), y - broad(middle_y[rows, k])
        shape = _solid(own, a, b, base[rows] * own.uniform(0.75, 1.1))
        image[rows] = mix(image[rows], _against(own, back[rows]), cover(shape, 0.06))
    image = image + light(u, x, y, 0.15)
    return image + broad(u.uniform(0.0, 0.07), 3) * u.grain(size)


def _backdrop(u: Draws, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cloudy background with a few faint lines, and its mean colour ``(B, 1, 1, 3)``."""
    back = u.uniform(0.1, 0.9, (3,))[:, None, None]
    image = back + (broad(u.uniform(0, 0.08)) * fractal(u, x, y, (3, 6, 12), 0.7))[..., None]
    for _ in range(2):
        line, _ = to_segment(x, y, u.uniform(-1.3, 1.3, (2,)), u.uniform(-1.3, 1.3, (2,)))
        strength = np.where(u.chance(0.4), u.uniform(-0.12, 0.12), 0.0)
        image = image + (cover(line - 0.02, 0.06) * broad(strength))[..., None]
    return image, back


def _against(u: Draws, back: np.ndarray, gap: float = 0.3) -> np.ndarray:
    """A colour, each channel of which differs from the background's."""
    # From `gap` above the background's value, up to 1, and on from 0 to `gap` below it.
    colour = back + gap + u.uniform(0, 1 - 2 * gap, (3,))[:, None, None]
    return colour - np.floor(colour)


def _solid(u: Draws, a: np.ndarray, b: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Signed distance to a disc, square, triangle, ring or bar of equal reach, any way up."""
    a, b = rotate(a, b, broad(u.uniform()))
    r = broad(radius)
    disc = length(a, b) - r * 0.85
    kinds = (
        disc,
        box(a, b, r * 0.72, r * 0.72),
        polygon(a, b, 3, r * 1.15),
        np.maximum(disc, r * 0.35 - length(a, b)),
        box(a, b, r, r * 0.4),
    )
    kind = broad(u.integer(len(kinds)))
    distance = kinds[0]
    for k, other in enumerate(kinds[1:], start=1):
        distance = np.where(kind == k, other, distance)
    return distance


DISTANCE = ('1.0-1.35', '1.35-1.8', '1.8-2.4', '2.4-3.3', '3.3-4.5', '4.5-6.0')
_EDGES = (1.0, 1.35, 1.8, 2.4, 3.3, 4.5, 6.0)


def draw_distance(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """One to four things on a tiled floor in perspective: how far is the closest one?

    The class is the distance where the closest thing stands; at distance 1 the floor is half an
    image below the horizon. Things are small or large, so their size does not give it away.
    """
    x, y = grid(size)
    horizon = broad(u.uniform(-0.65, -0.1))
    below = np.maximum(y - horizon, 0.02)
    depth = 1.0 / below  # of the floor at a pixel
    sky, floor = two_colours(u, 0.25, 0.7)
    floor_two = floor + u.uniform(-0.15, 0.15)[:, None, None, None]
    rate = broad(u.uniform(0.6, 1.4))
    tile = np.floor(x * depth * rate + broad(u.uniform())) + np.floor(
        depth * rate + broad(u.uniform())
    )
    odd = tile - 2 * np.floor(tile / 2)
    fog = np.clip(2.5 * below, 0, 1)  # hides tiles that are finer than pixels
    image = mix(floor + np.zeros((len(labels), size, size, 3)), floor_two, odd * fog)
    image = mix(image, sky, cover(y - horizon, 0.05))
    image = image + (broad(u.uniform(0, 0.1)) * fractal(u, x, y, (4, 9)))[..., None]

    edges = np.array(_EDGES)
    low, high = edges[labels], edges[labels + 1]
    margin = 0.06 * (high - low)
    closest = low + margin + (high - low - 2 * margin) * u.uniform()
    others = closest[:, None] + 0.15 + u.uniform(0, 1, (3,)) * (7.5 - closest[:, None])
    number = u.integer(4)
    others = np.where(np.arange(3) < number[:, None], others, 99.0)  # 99: not there
    far_first = -np.sort(-others, axis=1)
    distances = np.concatenate([far_first, closest[:, None]], axis=1)
    for k in range(4):
        away = distances[:, k]
        place, extent = u.uniform(-0.8, 0.8), u.uniform(0.22, 0.75) / away
        foot = y - horizon - broad(1.0 / away)
        there = broad(np.where(away < 50, 1.0, 0.0))
        extent = np.minimum(extent, 0.45)
        r = broad(extent)
        shadow = length((x - broad(place)) / (r * 1.1), foot / (r * 0.35)) - 1
        image = mix(image, image * 0.35, cover(shadow, 0.5) * there * 0.8)
        a, b = x - broad(place), foot + r
        tall = broad(u.uniform(0.7, 1.2))
        kinds = (length(a, b) - r, box(a, b, r * 0.8, r), polygon(a, b - 0.3 * r, 3, r * 1.3))
        kind = broad(u.integer(3))
        shape = np.where(kind == 0, kinds[0], np.where(kind == 1, kinds[1], kinds[2]))
        shade = 1 + 0.35 * np.clip(-(a + b) / (r * tall), -1, 1)
        colour = _against(u, floor) * shade[..., None]
        image = mix(image, colour, cover(shape, 0.05) * there)
    image = image + light(u, x, y, 0.1)
    return image + broad(u.uniform(0.0, 0.06), 3) * u.grain(size)


ORIENTATION = tuple(f'{step * 22.5:g}' for step in range(16))


def draw_orientation(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """An arrow, drop or key that points one of 16 ways (degrees clockwise from up)."""
    x, y = grid(size)
    image, back = _backdrop(u, x, y)
    turn = (labels + u.uniform(-0.3, 0.3)) / 16
    a, b = x - broad(u.uniform(-0.3, 0.3)), y - broad(u.uniform(-0.3, 0.3))
    a, b = rotate(a, b, broad(turn))
    scale = u.uniform(0.45, 0.65)
    a, b = a / broad(scale * u.uniform(0.8, 1.2)), b / broad(scale)
    kinds = (_arrow(a, b), _drop(a, b), _key(a, b))
    kind = broad(u.integer(len(kinds)))
    shape = kinds[0]
    for k, other in enumerate(kinds[1:], start=1):
        shape = np.where(kind == k, other, shape)
    image = mix(image, _against(u, back), cover(shape, broad(0.07 / scale)))
    # Blots that hide parts of it.
    for _ in range(2):
        blot = length(x - broad(u.uniform(-1, 1)), y - broad(u.uniform(-1, 1)))
        seen = cover(blot - broad(u.uniform(0.05, 0.15)), 0.06)
        image = mix(image, _against(u, back), seen * broad(np.where(u.chance(0.5), 1.0, 0.0)))
    image = image + light(u, x, y, 0.15)
    return image + broad(u.uniform(0.0, 0.08), 3) * u.grain(size)


def _arrow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    head = np.maximum(polygon(a, b + 0.35, 3, 0.62), b - 0.02)
    return np.minimum(head, box(a, b - 0.35, 0.17, 0.6))


def _drop(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    side = 0.86 * np.abs(a) - 0.5 * (b + 0.95)
    tip = np.maximum(side, b - 0.1)
    return np.minimum(tip, length(a, b - 0.35) - 0.55)


def _key(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bow = np.abs(length(a, b - 0.5) - 0.33) - 0.13
    bar = box(a, b + 0.35, 0.12, 0.55)
    return np.minimum(np.minimum(bow, bar), box(a - 0.2, b + 0.7, 0.25, 0.13))
