"""MiniVTAB's specialized group: images of instruments. Blood cells, land from above, surfaces."""

import numpy as np

from gleam_mm.minivtab.canvas import (
    Draws,
    box,
    broad,
    cos,
    cover,
    falloff,
    fractal,
    grid,
    length,
    light,
    mix,
    noise,
    rotate,
    sin,
    step,
    to_polyline,
    to_segment,
    voronoi,
    warp,
)

CELLS = (
    'lymphocyte',
    'monocyte',
    'neutrophil',
    'eosinophil',
    'basophil',
    'erythroblast',
    'blast',
    'erythrocyte',
)


def draw_cells(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """A stained blood cell among red ones: the class is in the nucleus and the granules.

    Stain, light and focus vary, and the sizes of the kinds overlap.
    """
    x, y = grid(size)
    batch = len(labels)
    soft = broad(u.uniform(0.06, 0.22))
    pale = _tinted(u, (0.92, 0.88, 0.88), 0.07)
    red = _tinted(u, (0.86, 0.66, 0.66), 0.09)
    plasm = _tinted(u, (0.72, 0.70, 0.84), 0.12)
    dark = _tinted(u, (0.42, 0.26, 0.58), 0.12)
    image = pale + np.zeros((batch, size, size, 3))
    for _ in range(4):  # red cells around
        away, turn = u.uniform(0.75, 1.3), u.uniform()
        radius = u.uniform(0.3, 0.42)
        distance = length(x - broad(away * cos(turn)), y - broad(away * sin(turn)))
        disc = cover(distance - broad(radius), soft)
        middle = 0.6 * cover(distance - broad(0.4 * radius), 0.2)
        image = mix(image, red, disc * (1 - middle) * broad(np.where(u.chance(0.7), 1.0, 0.0)))

    middle_x, middle_y = u.uniform(-0.2, 0.2), u.uniform(-0.2, 0.2)
    a, b = warp(u, x - broad(middle_x), y - broad(middle_y), u.uniform(0.03, 0.14))
    a, b = rotate(a, b, broad(u.uniform()))
    body = np.array([0.48, 0.66, 0.60, 0.60, 0.56, 0.46, 0.64, 0.46])[labels]
    body = body * u.uniform(0.85, 1.2)
    inside = length(a, b) - broad(body)
    plain = labels == CELLS.index('erythrocyte')
    plasm = np.where(broad(plain, 3), red, plasm)
    image = mix(image, plasm, cover(inside, soft))
    nucleus = np.full((batch, size, size), 9.0)
    kinds = (_round, _kidney, _lobes, _two_lobes, _round, _small, _large)
    for label, kind in enumerate(kinds):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            nucleus[rows] = kind(u.take(rows), a[rows], b[rows], broad(body[rows]))
    chromatin = 0.85 + 0.25 * fractal(u, x, y, (7, 12))
    image = mix(image, dark, np.clip(cover(nucleus, soft) * chromatin, 0, 1))

    # Granules: coarse ones in eosinophils and basophils, and dust on anything.
    coarse = np.isin(labels, [CELLS.index('eosinophil'), CELLS.index('basophil')])
    rose = np.where(
        broad(labels == CELLS.index('eosinophil'), 3),
        _tinted(u, (0.84, 0.46, 0.42), 0.1),
        _tinted(u, (0.3, 0.2, 0.5), 0.1),
    )
    first, _, _ = voronoi(a, b, u.uniform(-0.7, 0.7, (22, 2)))
    grains = cover(first - broad(u.uniform(0.02, 0.07)), 0.08) * cover(inside + 0.05, 0.1)
    strength = np.where(coarse, u.uniform(0.5, 0.9), np.where(u.chance(0.3), 0.3, 0.0))
    image = mix(image, rose, grains * broad(strength))
    # The dents of a red cell, and the bright nucleoli of a blast.
    pit = falloff((a * a + b * b) / broad(body * body * 0.4))
    image = mix(image, pale, pit * broad(np.where(plain, u.uniform(0.3, 0.7), 0.0)))
    spots = u.uniform(-0.22, 0.22, (2, 2))
    blast = np.where(labels == CELLS.index('blast'), u.uniform(0.4, 0.8), 0.0)
    for k in range(2):
        distance = length(a - broad(spots[:, k, 0]), b - broad(spots[:, k, 1]))
        image = mix(image, pale, cover(distance - 0.07, 0.08) * broad(blast))
    image = image * broad(u.uniform(0.75, 1.08), 3) + light(u, x, y, 0.2)
    return image + broad(u.uniform(0.01, 0.1), 3) * u.grain(size)


def _tinted(u: Draws, colour: tuple[float, ...], jitter: float) -> np.ndarray:
    """A colour that varies from image to image, ``(B, 1, 1, 3)``."""
    return (np.array(colour) + u.uniform(-jitter, jitter, (3,)))[:, None, None]


def _round(u: Draws, a: np.ndarray, b: np.ndarray, body: np.ndarray) -> np.ndarray:
    shift = broad(u.uniform(-0.1, 0.1))
    return length(a - shift * body, b) - body * broad(u.uniform(0.62, 0.82))


def _small(u: Draws, a: np.ndarray, b: np.ndarray, body: np.ndarray) -> np.ndarray:
    shift = broad(u.uniform(-0.25, 0.25))
    return length(a - shift * body, b) - body * broad(u.uniform(0.4, 0.58))


def _large(u: Draws, a: np.ndarray, b: np.ndarray, body: np.ndarray) -> np.ndarray:
    return length(a, b) - body * broad(u.uniform(0.72, 0.88))


def _kidney(u: Draws, a: np.ndarray, b: np.ndarray, body: np.ndarray) -> np.ndarray:
    outer = length(a, b) - body * broad(u.uniform(0.62, 0.78))
    notch = length(a - body * broad(u.uniform(0.5, 0.7)), b) - body * broad(u.uniform(0.34, 0.46))
    return np.maximum(outer, -notch)


def _two_lobes(u: Draws, a: np.ndarray, b: np.ndarray, body: np.ndarray) -> np.ndarray:
    apart = body * broad(u.uniform(0.34, 0.46))
    lobes = length(np.abs(a) - apart, b) - body * broad(u.uniform(0.3, 0.4))
    return np.minimum(lobes, box(a, b, apart, body * 0.07))


def _lobes(u: Draws, a: np.ndarray, b: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Three or four lobes on a bow."""
    third, away = u.uniform(0.2, 0.28), broad(u.uniform(0.4, 0.5)) * body
    distance = np.full(a.shape, 9.0)
    four = u.chance(0.5)
    for k in range(4):
        turn = broad((k - 1) * third)
        lobe = length(a - away * cos(turn), b - away * sin(turn))
        lobe = lobe - body * broad(u.uniform(0.2, 0.3))
        if k == 3:
            lobe = np.where(broad(four), lobe, 9.0)
        distance = np.minimum(distance, lobe)
    return distance


LAND = (
    'forest',
    'crops',
    'pasture',
    'residential',
    'industrial',
    'highway',
    'river',
    'lake',
)


def draw_land(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """A patch of land seen from above. Season and haze change the colours of everything."""
    x, y = grid(size)
    a, b = rotate(x, y, broad(u.uniform()))
    a, b = a + broad(u.uniform(-0.2, 0.2)), b + broad(u.uniform(-0.2, 0.2))
    season = u.uniform(size=(1,))
    green = np.array([0.24, 0.42, 0.2]) * (1 - season) + np.array([0.55, 0.48, 0.28]) * season
    green = (green + u.uniform(-0.08, 0.08, (3,)))[:, None, None]
    rough = fractal(u, x, y, (4, 8, 15), 0.8)
    image = green + (broad(u.uniform(0.02, 0.12)) * rough)[..., None]
    kinds = (_forest, _crops, _pasture, _residential, _industrial, _highway, _river, _lake)
    for label, kind in enumerate(kinds):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            image[rows] = kind(u.take(rows), a[rows], b[rows], image[rows])
    # Clouds' shadows, haze and the sensor.
    shade = np.clip(fractal(u, x, y, (3, 5)), 0, 1)
    image = image * (1 - (broad(u.uniform(0, 0.5)) * shade)[..., None])
    haze = broad(u.uniform(0, 0.55), 3)
    image = image * (1 - haze) + u.uniform(0.55, 0.8)[:, None, None, None] * haze
    return image + broad(u.uniform(0.02, 0.14), 3) * u.grain(size)


def _forest(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    first, _, _ = voronoi(a, b, u.uniform(-1.4, 1.4, (40, 2)))
    crowns = falloff(first * first / broad(u.uniform(0.03, 0.09)))
    image = image * (0.5 + 0.6 * crowns)[..., None]
    clearing = step(4 * (fractal(u, a, b, (4, 7)) - broad(u.uniform(0.25, 0.9))))
    return mix(image, image * 1.5 + 0.08, clearing)


def _crops(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    cuts = np.stack([u.uniform(-0.9, 0.0), u.uniform(0.0, 0.9)], axis=1)
    field = (a > broad(cuts[:, 0])).astype(np.int64) + 2 * (b > broad(cuts[:, 1]))
    colours = u.uniform(-0.16, 0.16, (4, 3))
    image = image + colours[np.arange(len(a))[:, None, None], field]
    rates, strength = u.uniform(2, 6, (4,)), u.uniform(0.0, 0.1, (4,))
    n = np.arange(len(a))[:, None, None]
    rows = np.where(field % 2 == 0, a, b) * rates[n, field]
    return image + (sin(rows) * strength[n, field])[..., None]


def _pasture(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    image = image * 1.1 + 0.04
    path, _ = to_segment(a, b, u.uniform(-1.4, 1.4, (2,)), u.uniform(-1.4, 1.4, (2,)))
    seen = cover(path - 0.015, 0.05) * broad(np.where(u.chance(0.5), u.uniform(0.3, 0.7), 0.0))
    image = mix(image, _tinted(u, (0.6, 0.56, 0.48), 0.08), seen)
    trees = u.uniform(-1, 1, (3, 2))
    for k in range(3):
        tree = length(a - broad(trees[:, k, 0]), b - broad(trees[:, k, 1]))
        seen = cover(tree - 0.07, 0.07) * broad(np.where(u.chance(0.5), 0.7, 0.0))
        image = mix(image, image * 0.5, seen)
    return image


def _residential(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    rate = broad(u.uniform(2.0, 3.2))
    roof = _tinted(u, (0.62, 0.46, 0.4), 0.14)
    p, q = a * rate, b * rate
    cell_p, cell_q = np.floor(p + 0.5), np.floor(q + 0.5)
    # A number for every house from a lattice of random ones.
    lattice = u.uniform(size=(11, 11))
    n = np.arange(len(a))[:, None, None]
    i, j = (np.clip(c + 5, 0, 10).astype(np.int64) for c in (cell_q, cell_p))
    own = lattice[n, i, j]
    half = 0.18 + 0.16 * own
    house = box(p - cell_p + 0.3 * (own - 0.5), q - cell_q, half, 0.42 - half * 0.6)
    seen = cover(house, 0.12) * (own > 0.2)
    image = mix(image, roof + 0.2 * (own[..., None] - 0.5), seen * broad(u.uniform(0.6, 0.95)))
    street = np.abs(q - np.floor(q / 3) * 3 - 1.5)
    return mix(image, _tinted(u, (0.55, 0.55, 0.55), 0.08), cover(street - 0.14, 0.15) * 0.8)


def _industrial(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    yard = _tinted(u, (0.55, 0.54, 0.52), 0.12)
    image = mix(image, yard, np.full(a.shape, 1.0) * broad(u.uniform(0.2, 0.8)))
    for _ in range(4):
        p, q = a - broad(u.uniform(-0.9, 0.9)), b - broad(u.uniform(-0.9, 0.9))
        half_p, half_q = broad(u.uniform(0.18, 0.5)), broad(u.uniform(0.12, 0.4))
        roof = _tinted(u, (0.7, 0.7, 0.72), 0.2)
        image = mix(image, image * 0.4, cover(box(p - 0.07, q - 0.07, half_p, half_q), 0.07) * 0.7)
        image = mix(image, roof, cover(box(p, q, half_p, half_q), 0.06))
    return image


def _way(u: Draws, a: np.ndarray, b: np.ndarray, bend: float) -> np.ndarray:
    """Distance to a line through the image that bends."""
    offset = broad(u.uniform(-0.4, 0.4))
    swing = broad(u.uniform(-bend, bend)) * sin(b * broad(u.uniform(0.2, 0.5)) + broad(u.uniform()))
    return np.abs(a - offset - swing)


def _highway(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    image = _crops(u, a, b, image)
    distance = _way(u, a, b, 0.2)
    width = broad(u.uniform(0.07, 0.16))
    image = mix(image, _tinted(u, (0.5, 0.5, 0.5), 0.12), cover(distance - width, 0.06) * 0.9)
    return mix(image, _tinted(u, (0.75, 0.73, 0.68), 0.1), cover(distance - 0.015, 0.05) * 0.6)


def _river(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    image = _crops(u, a, b, image)
    a, b = warp(u, a, b, u.uniform(0.1, 0.25), 5)
    distance = _way(u, a, b, 0.35)
    seen = cover(distance - broad(u.uniform(0.07, 0.22)), 0.09)
    return mix(image, _water(u), seen * 0.95)


def _lake(u: Draws, a: np.ndarray, b: np.ndarray, image: np.ndarray) -> np.ndarray:
    image = _crops(u, a, b, image)
    a, b = warp(u, a, b, u.uniform(0.1, 0.3), 5)
    shore = length(a, b * broad(u.uniform(0.6, 1.6))) - broad(u.uniform(0.35, 0.9))
    return mix(image, _water(u), cover(shore, 0.09) * 0.95)


def _water(u: Draws) -> np.ndarray:
    return _tinted(u, (0.24, 0.34, 0.42), 0.12)


DEFECTS = ('clean', 'crack', 'scratch', 'pits', 'inclusion', 'stain', 'crazing')


def draw_defects(labels: np.ndarray, u: Draws, size: int) -> np.ndarray:
    """A brushed metal surface with one kind of defect, or none, often faint."""
    x, y = grid(size)
    direction = broad(u.uniform())
    a, b = rotate(x, y, direction)
    # Brushing: noise that is drawn out along b.
    brush = 0.0
    for cells in (9, 17, 30):
        values = u.uniform(-1, 1, (4, cells))
        brush = brush + noise(values, a / 1.5, b / 1.5)
    surface = 0.5 + broad(u.uniform(-0.15, 0.15))
    surface = surface + broad(u.uniform(0.01, 0.06)) * brush
    surface = surface + broad(u.uniform(0.0, 0.12)) * fractal(u, x, y, (4, 8))
    mark = np.zeros((len(labels), size, size))
    kinds = (None, _crack, _scratch, _pits, _inclusion, _stain, _crazing)
    for label, kind in enumerate(kinds):
        rows = np.flatnonzero(labels == label)
        if len(rows) and kind is not None:
            mark[rows] = kind(u.take(rows), x, y)
    depth = u.uniform(0.2, 0.45) * np.where(u.chance(0.75), -1.0, 1.0)
    grey = surface + broad(depth) * mark
    tint = 1 + u.uniform(-0.08, 0.08, (3,))[:, None, None]
    image = grey[..., None] * tint + light(u, x, y, 0.3)
    return image + broad(u.uniform(0.0, 0.08), 3) * u.grain(size, 1)


def _walk(u: Draws, points: int, stride: float, wander: float) -> np.ndarray:
    """A path that starts inside and keeps its direction more or less, ``(B, points, 2)``."""
    turn = u.uniform()
    place = u.uniform(-0.6, 0.6, (2,))
    path = [place]
    for _ in range(points - 1):
        turn = turn + u.uniform(-wander, wander)
        place = place + stride * np.stack([cos(turn), sin(turn)], axis=1)
        path.append(place)
    return np.stack(path, axis=1)


def _crack(u: Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    path = _walk(u, 7, 0.22, 0.14)
    main = cover(to_polyline(x, y, path) - broad(u.uniform(0.01, 0.04)), 0.06)
    branch = _walk(u, 4, 0.16, 0.14)
    branch = branch - branch[:, :1] + path[:, 2:3]
    return np.maximum(main, 0.8 * cover(to_polyline(x, y, branch) - 0.01, 0.06))


def _scratch(u: Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _strokes(u, x, y, 0.03, (0.4, 0.9), 0.6, (0.005, 0.03), 0.055, fade=0.6)


def _strokes(
    u: Draws,
    x: np.ndarray,
    y: np.ndarray,
    spread: float,
    lengths: tuple[float, float],
    reach: float,
    widths: tuple[float, float],
    edge: float,
    fade: float = 0.0,
) -> np.ndarray:
    """One to three strokes that are parallel up to ``spread``, weaker by ``fade`` at their ends."""
    mark = np.zeros((len(u), *x.shape[1:]))
    turn = u.uniform()
    number = u.integer(3)
    for k in range(3):
        own = turn + u.uniform(-spread, spread)
        half = broad(u.uniform(*lengths), 1) * np.stack([cos(own), sin(own)], axis=1)
        middle = u.uniform(-reach, reach, (2,))
        distance, along = to_segment(x, y, middle - half, middle + half)
        one = cover(distance - broad(u.uniform(*widths)), edge) * (1 - np.abs(2 * along - 1) * fade)
        mark = np.maximum(mark, one * broad(np.where(number >= k, 1.0, 0.0)))
    return mark


def _pits(u: Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    centre = u.uniform(-0.5, 0.5, (1, 2))
    places = centre + u.uniform(-0.7, 0.7, (9, 2))
    first, _, nearest = voronoi(x, y, places)
    radii = u.uniform(0.02, 0.09, (9,))
    return cover(first - radii[np.arange(len(u))[:, None, None], nearest], 0.07)


def _inclusion(u: Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A few short, thick, parallel dashes."""
    return _strokes(u, x, y, 0.05, (0.08, 0.22), 0.7, (0.03, 0.08), 0.07)


def _stain(u: Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = warp(u, x, y, u.uniform(0.1, 0.25), 5)
    a, b = a - broad(u.uniform(-0.5, 0.5)), b - broad(u.uniform(-0.5, 0.5))
    blot = length(a, b * broad(u.uniform(0.6, 1.5))) - broad(u.uniform(0.2, 0.5))
    return 0.8 * cover(blot, broad(u.uniform(0.08, 0.3)))


def _crazing(u: Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A fine net of cracks."""
    a, b = warp(u, x, y, u.uniform(0.0, 0.1))
    first, second, _ = voronoi(a, b, u.uniform(-1.3, 1.3, (24, 2)))
    net = cover(second - first - broad(u.uniform(0.02, 0.06)), 0.07)
    return net * np.clip(0.7 + fractal(u, x, y, (3, 4)), 0, 1)
