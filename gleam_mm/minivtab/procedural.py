"""The corpus that ``vit-mini`` is pre-trained on: images drawn by formulas, no real data.

An image is a pure function of ``(seed, index)``. A counter-based generator turns the pair into a
row of uniform numbers, and a whole batch of rows is rendered at once with NumPy, so that drawing
costs little beside training. The corpus has no end: every index has an image, and
:class:`FreshSampler` hands out indices that no earlier epoch has seen.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from gleam_mm.minivtab.canvas import Columns, Draws, broad, cover, grid, quantise, step, to_points
from gleam_mm.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS

__all__ = ['FreshSampler', 'ProceduralImages']

SIZE = 32  # pixels a side
_DRAWS = 288  # uniform numbers an image may use, ...
_LOOK_DRAWS = 128  # ... of which these many go to colours, light, clutter and noise
_STROKES, _CONTROLS, _SAMPLES = 4, 5, 32  # of a glyph: strokes, control points and samples a stroke
_CLUTTER = 3  # distracting strokes an image may have
_OBJECTS = 5  # most objects in a counting scene

_SHAPES = ('ellipse', 'triangle', 'square', 'pentagon', 'star', 'ring', 'cross', 'flower')
_WAVES = ('sine', 'square', 'plaid', 'checker', 'radial', 'dots')


def _interpolation(cells: int) -> np.ndarray:
    """Matrix ``(SIZE, cells)`` of smooth interpolation from ``cells`` knots to the pixels."""
    position = np.linspace(0, cells - 1, SIZE)
    left = np.minimum(position.astype(int), cells - 2)
    t = position - left
    t = t * t * (3 - 2 * t)
    matrix = np.zeros((SIZE, cells), np.float32)
    matrix[np.arange(SIZE), left] = 1 - t
    matrix[np.arange(SIZE), left + 1] = t
    return matrix


def _stroke_bases() -> np.ndarray:
    """How samples along a stroke follow from its control points: ``(2, _SAMPLES, _CONTROLS)``.

    The first basis is a Bezier curve, the second a polyline.
    """
    t = np.linspace(0, 1, _SAMPLES)
    degree = _CONTROLS - 1
    binomial = [1, 4, 6, 4, 1]
    bezier = np.stack([binomial[k] * t**k * (1 - t) ** (degree - k) for k in range(_CONTROLS)], 1)
    knots = t * degree
    polyline = np.clip(1 - np.abs(knots[:, None] - np.arange(_CONTROLS)), 0, None)
    return np.stack([bezier, polyline]).astype(np.float32)


class _Glyphs:
    """Prototypes of made-up written characters, each a composition of strokes.

    Attributes:
        controls (np.ndarray): Control points in [-1, 1], ``(G, _STROKES, _CONTROLS, 2)``. Strokes
            that a prototype does not have repeat its first one.
        bent (np.ndarray): Whether a stroke is a polyline, int ``(G, _STROKES)``.
    """

    def __init__(self, number: int, rng: np.random.Generator):
        self.controls = np.empty((number, _STROKES, _CONTROLS, 2), np.float32)
        self.bent = np.zeros((number, _STROKES), np.int64)
        for g in range(number):
            strokes = 1 + rng.choice(_STROKES, p=[0.25, 0.35, 0.25, 0.15])
            for s in range(_STROKES):
                if s < strokes:
                    self.controls[g, s], self.bent[g, s] = self._stroke(rng)
                else:
                    self.controls[g, s], self.bent[g, s] = self.controls[g, 0], self.bent[g, 0]
            used = self.controls[g].reshape(-1, 2)
            low, high = used.min(axis=0), used.max(axis=0)
            # Centred, its longer side as long as the frame's.
            half = max(0.5, (high - low).max() / 2)
            self.controls[g] = (self.controls[g] - (low + high) / 2) / half

    @staticmethod
    def _stroke(rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """One stroke: its control points and whether they are joined by straight lines."""
        kinds = ['line', 'curve', 'corner', 'arc', 'loop']
        kind = rng.choice(kinds, p=[0.25, 0.25, 0.15, 0.2, 0.15])
        if kind == 'line':
            start = rng.uniform(-1, 1, 2)
            angle = rng.choice(8) * np.pi / 4 + rng.normal(0, 0.15)
            end = start + rng.uniform(0.7, 1.8) * np.array([np.cos(angle), np.sin(angle)])
            return np.linspace(start, np.clip(end, -1.1, 1.1), _CONTROLS), 1
        if kind == 'curve':
            walk = rng.uniform(-1, 1, 2) + np.cumsum(rng.normal(0, 0.9, (_CONTROLS, 2)), axis=0)
            return np.clip(walk, -1.3, 1.3), 0
        if kind == 'corner':
            corners = rng.uniform(-1, 1, (3, 2))
            middle = (corners[:-1] + corners[1:]) / 2
            return np.stack([corners[0], middle[0], corners[1], middle[1], corners[2]]), 1
        centre, radius = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.3, 0.9, 2)
        start = rng.uniform(0, 2 * np.pi)
        if kind == 'arc':
            angle = start + np.linspace(0, rng.uniform(1.5, 4.5), _CONTROLS)
            # A Bezier curve stays inside its control polygon, hence the larger radius.
            circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            return centre + 1.3 * radius * circle, 0
        angle = start + np.linspace(0, 2 * np.pi, _CONTROLS)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return centre + 1.28 * radius * circle, 0


@DATASETS.register_module()
class ProceduralImages(Dataset):
    """Procedurally drawn RGB images in four families of classes.

    - *glyphs*: compositions of one to four strokes (lines, arcs, loops, polylines, free curves)
      under strong affine, elastic and control-point distortion;
    - *textures*: gratings, plaids, checks, rings and dots by orientation and frequency, and noise
      by scale and direction;
    - *counts*: one to five objects of one of eight shapes, at random places;
    - *places*: a single object, labelled by where it is and how large it is.

    Colours, contrast, polarity, edge softness, thickness, background gradients, clutter and noise
    vary in every family and carry no information about the label.

    Args:
        size (int): Images an epoch. Any index is valid, also beyond ``size``.
        seed (int): Two corpora of different seeds have the same classes and different images.
        glyphs (int): Number of glyph classes. Defaults to 256.
        prototype_seed (int): Seed of the glyph prototypes, which define the classes. Defaults to 0.
        pipeline (Sequence): Transforms of ``dict(img, gt_label)``; ``img`` is ``(32, 32, 3)``,
            uint8, RGB.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        glyphs: int = 256,
        prototype_seed: int = 0,
        pipeline: Sequence = (),
    ):
        if size < 1:
            raise ValueError(f'size must be at least 1, got {size}')
        if glyphs < 1:
            raise ValueError(f'glyphs must be at least 1, got {glyphs}')
        self.size, self.seed = size, seed
        self._glyphs = _Glyphs(glyphs, np.random.default_rng(prototype_seed))
        self._textures = self._list_textures()
        counts = [f'{n}-{shape}' for shape in _SHAPES for n in range(1, _OBJECTS + 1)]
        places = [
            f'{size}-at-{row}{column}'
            for size in ('small', 'large')
            for row in range(4)
            for column in range(4)
        ]
        names = [f'glyph-{g:03d}' for g in range(glyphs)]
        names += [name for name, *_ in self._textures] + counts + places
        #: First class of each family, and the number of classes.
        self._starts = np.cumsum([0, glyphs, len(self._textures), len(counts), len(places)])
        self.metainfo = dict(classes=tuple(names))
        self.pipeline = Compose(
            [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline]
        )
        # One row and one column: what depends on x or y alone is computed once for all pixels.
        x, y = grid(SIZE)
        self._x, self._y = x[:, :1].astype(np.float32), y[:, :, :1].astype(np.float32)
        self._bases = _stroke_bases()
        self._knots = {cells: _interpolation(cells) for cells in (3, 6, 12)}

    @staticmethod
    def _list_textures() -> list[tuple]:
        """``(name, wave, orientation, frequency)`` of every texture class; wave -1 is noise."""
        rows = []
        for w, wave in enumerate(_WAVES):
            orientations = {'sine': 8, 'square': 8, 'plaid': 4, 'checker': 4}.get(wave, 1)
            for o in range(orientations):
                for f, frequency in enumerate((2.2, 3.6, 5.8)):
                    turn = np.pi * o / orientations
                    rows.append((f'{wave}-{o}-{f}', w, turn, frequency))
        for cells in (3, 6, 12):
            rows.append((f'noise-{cells}', -1, 0.0, cells))
        return rows

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self._starts[-1])

    def __len__(self) -> int:
        return self.size

    def labels(self, indices: Sequence[int]) -> np.ndarray:
        """Classes of images: each run of ``num_classes`` indices holds every class once."""
        return np.asarray(indices, np.int64) % self.num_classes

    def render(self, indices: Sequence[int]) -> np.ndarray:
        """Draws images.

        Args:
            indices (Sequence[int]): Which images, each at least 0.

        Returns:
            np.ndarray: uint8 RGB, shape ``(len(indices), 32, 32, 3)``.
        """
        labels = self.labels(indices)
        uniforms = np.empty((len(labels), _DRAWS), np.float32)
        grain = np.empty((len(labels), SIZE, SIZE, 3), np.float32)
        for row, index in enumerate(indices):
            key = np.array([self.seed, index], np.uint64)
            rng = np.random.Generator(np.random.Philox(key=key))
            uniforms[row] = rng.random(_DRAWS, dtype=np.float32)
            grain[row] = np.frombuffer(rng.bytes(SIZE * SIZE * 3), np.uint8).reshape(SIZE, SIZE, 3)
        family = np.searchsorted(self._starts, labels, side='right') - 1
        ink = np.empty((len(labels), SIZE, SIZE), np.float32)
        families = (self._draw_glyphs, self._draw_textures, self._draw_counts, self._draw_places)
        for f, draw in enumerate(families):
            chosen = np.flatnonzero(family == f)
            if len(chosen):
                own = Columns(uniforms[chosen, _LOOK_DRAWS:])
                ink[chosen] = draw(labels[chosen] - self._starts[f], own)
        return self._paint(ink, family, Columns(uniforms[:, :_LOOK_DRAWS]), grain)

    def _draw_glyphs(self, glyph: np.ndarray, u: Draws) -> np.ndarray:
        """Cover, 0 to 1, of glyphs ``(B,)``."""
        controls = self._glyphs.controls[glyph]
        wobble = u.uniform(0.02, 0.1)[:, None, None, None]
        controls = controls + wobble * u.bell((_STROKES, _CONTROLS, 2))
        points = np.einsum('bstc,bscx->bstx', self._bases[self._glyphs.bent[glyph]], controls)
        points = points.reshape(len(glyph), -1, 2)
        # Elastic: a slow wave along each axis bends the whole glyph.
        amplitude = u.uniform(0, 0.22, (2,))[:, None, :]
        wave = u.uniform(0.8, 2.4, (2,))[:, None, :]
        phase = u.uniform(0, 2 * np.pi, (2,))[:, None, :]
        points = points + amplitude * np.sin(wave * points[..., ::-1] + phase)
        turn, shear = u.uniform(-0.35, 0.35), u.uniform(-0.3, 0.3)
        size, aspect = u.uniform(0.5, 0.85), np.exp(u.uniform(-0.3, 0.3))
        cos, sin = np.cos(turn), np.sin(turn)
        x, y = points[..., 0] * aspect[:, None], points[..., 1] / aspect[:, None]
        x = x + shear[:, None] * y
        cos, sin = cos[:, None], sin[:, None]
        moved = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
        room = np.clip(0.95 - size, 0, None)[:, None]
        moved = moved * broad(size) + (room * u.uniform(-1, 1, (2,)))[:, None, :]
        distance = to_points(self._x, self._y, moved.astype(np.float32))
        thickness, soft = u.uniform(0.05, 0.15), u.uniform(0.03, 0.16)
        return cover(distance - broad(thickness), broad(soft))

    def _draw_textures(self, texture: np.ndarray, u: Draws) -> np.ndarray:
        """Cover, 0 to 1, of textures ``(B,)``."""
        _, wave, turn, frequency = (
            np.array(column) for column in zip(*(self._textures[t] for t in texture), strict=True)
        )
        turn = turn + u.uniform(-0.15, 0.15)
        steps = frequency * np.exp(u.uniform(-0.17, 0.17)) * np.pi
        x, y = self._x, self._y
        bend, bend_phase = u.uniform(0, 0.12), u.uniform(0, 6.28)
        cos, sin = (f(turn)[:, None, None].astype(np.float32) for f in (np.cos, np.sin))
        a, b = cos * x + sin * y, cos * y - sin * x
        a = a + broad(bend) * np.sin(2 * b + broad(bend_phase))
        phases = u.uniform(0, 2 * np.pi, (2,))[:, :, None, None]
        rate = broad(steps).astype(np.float32)
        one, two = np.sin(rate * a + phases[:, 0]), np.sin(rate * b + phases[:, 1])
        centre = u.uniform(-0.5, 0.5, (2,))[:, :, None, None]
        rings = np.sin(rate * np.hypot(x - centre[:, 0], y - centre[:, 1]) + phases[:, 0])
        sharp = u.uniform(2, 8)[:, None, None]
        kinds = [
            lambda i: 0.5 + 0.5 * one[i],
            lambda i: step(sharp[i] * one[i]),
            lambda i: 0.5 + 0.25 * (one[i] + two[i]),
            lambda i: step(sharp[i] * one[i] * two[i]),
            lambda i: 0.5 + 0.5 * rings[i],
            lambda i: step(sharp[i] * (one[i] + two[i] - 0.9)),
        ]
        ink = np.empty(a.shape, np.float32)
        for w, kind in enumerate(kinds):
            rows = np.flatnonzero(wave == w)
            if len(rows):
                ink[rows] = kind(rows)
        knots, more = u.uniform(-0.5, 1.5, (2, 6, 6)).swapaxes(0, 1)
        for row in np.flatnonzero(wave < 0):
            cells = int(frequency[row])
            values = knots[row, :cells, :cells]
            if cells == 12:
                values = np.block([[values, more[row]], [more[row].T, values.T[::-1]]])
            ink[row] = self._knots[cells] @ values @ self._knots[cells].T
        return np.clip(ink, 0, 1)

    def _objects(
        self, shape: np.ndarray, centre: np.ndarray, radius: np.ndarray, turn: np.ndarray, u: Draws
    ) -> np.ndarray:
        """Cover of one object an image: shape (B,), centre (B, 2), radius (B,), turn (B,)."""
        x, y = self._x - broad(centre[:, 0]), self._y - broad(centre[:, 1])
        distance = np.hypot(x, y)
        angle = np.arctan2(y, x) - broad(turn)
        r = broad(radius)
        aspect = u.uniform(0.0, 0.35)[:, None, None]
        soft = u.uniform(0.03, 0.12)[:, None, None]
        edge = np.empty_like(distance)
        for s, name in enumerate(_SHAPES):
            rows = np.flatnonzero(shape == s)
            edge[rows] = _outline(name, angle[rows], aspect[rows])
        ink = cover(distance - edge * r, soft)
        ring = np.flatnonzero(shape == _SHAPES.index('ring'))
        ink[ring] *= cover(0.55 * r[ring] - distance[ring], soft[ring])
        return ink

    def _draw_counts(self, scene: np.ndarray, u: Draws) -> np.ndarray:
        """Cover of counting scenes ``(B,)``: one to five objects of one shape."""
        shape, count = scene // _OBJECTS, scene % _OBJECTS + 1
        # Objects stand in distinct cells of a 3 x 3 grid, so that they can be told apart.
        cells = u.permutation(9)[:, :_OBJECTS]
        cell = np.stack([cells % 3, cells // 3], axis=-1) * 0.62 - 0.62
        centres = cell + u.uniform(-0.12, 0.12, (_OBJECTS, 2))
        radii = u.uniform(0.17, 0.27, (_OBJECTS,))
        turns = u.uniform(0, 2 * np.pi, (_OBJECTS,))
        ink = np.zeros((len(scene), SIZE, SIZE), np.float32)
        for o in range(_OBJECTS):
            rows = np.flatnonzero(count > o)
            one = self._objects(shape, centres[:, o], radii[:, o], turns[:, o], u)
            ink[rows] = np.maximum(ink[rows], one[rows])
        return ink

    def _draw_places(self, scene: np.ndarray, u: Draws) -> np.ndarray:
        """Cover of one object each, in one of 16 places and two sizes."""
        large, place = scene // 16, scene % 16
        shape = u.integer(len(_SHAPES))
        cell = np.stack([place % 4, place // 4], axis=-1) * 0.4 - 0.6
        centre = cell + u.uniform(-0.14, 0.14, (2,))
        radius = np.where(large == 1, u.uniform(0.3, 0.42), u.uniform(0.14, 0.22))
        return self._objects(shape, centre, radius, u.uniform(0, 2 * np.pi), u)

    def _paint(
        self, ink: np.ndarray, family: np.ndarray, u: Draws, grain: np.ndarray
    ) -> np.ndarray:
        """Turns covers ``(B, SIZE, SIZE)`` into RGB images; nothing here depends on the class."""
        # Two colours whose brightness differs enough to see; either one may be the darker.
        gap, grey = u.uniform(0.4, 1.0), u.chance(0.35)
        low = u.uniform() * (1 - gap)
        tint = np.where(grey[:, None], 0, u.uniform(-0.3, 0.3, (6,)))
        front = np.clip((low + gap)[:, None] + tint[:, :3], 0, 1)[:, None, None, :]
        back = np.clip(low[:, None] + tint[:, 3:], 0, 1)[:, None, None, :]
        flip = broad(u.chance(0.5), 3)
        front, back = np.where(flip, back, front), np.where(flip, front, back)
        # Uneven light on the background: smooth noise, in part of the images.
        amount = np.where(u.chance(0.6), u.uniform(0, 0.35), 0)
        knots = u.uniform(-1, 1, (3, 3)) * broad(amount)
        light = self._knots[3] @ knots @ self._knots[3].T
        # Clutter: short faint strokes behind the subject, never behind a texture.
        start = u.uniform(-1, 1, (_CLUTTER, 2))
        end = start + u.uniform(-0.6, 0.6, (_CLUTTER, 2))
        number = np.where(u.chance(0.4) & (family != 1), np.ceil(u.uniform(0, _CLUTTER)), 0)
        strength = u.uniform(0.15, 0.5)
        t = np.linspace(0, 1, 8, dtype=np.float32)[None, None, :, None]
        lines = start[:, :, None] * (1 - t) + end[:, :, None] * t
        clutter = np.zeros_like(ink)
        for c in range(_CLUTTER):
            seen = np.flatnonzero(number > c)
            stroke = cover(to_points(self._x, self._y, lines[seen, c]) - 0.05, 0.06)
            clutter[seen] = np.maximum(clutter[seen], stroke)
        clutter = (clutter * broad(strength) * (1 - ink))[..., None]
        ink = ink[..., None]
        image = back + light[..., None] + (front - back) * np.maximum(ink, clutter)
        noise = np.where(u.chance(0.5), u.uniform(0, 0.1), 0)
        image += broad(noise, 3) * (grain / 127.5 - 1)
        return quantise(image)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list:
        """A batch of items, drawn together; PyTorch's loader asks for whole batches like this."""
        images, labels = self.render(indices), self.labels(indices)
        return [
            self.pipeline(dict(img=image, gt_label=int(label)))
            for image, label in zip(images, labels, strict=True)
        ]


def _outline(shape: str, angle: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    """How far a shape of radius 1 reaches in a direction; ``aspect`` flattens ellipses."""
    if shape == 'ellipse':
        return 1 - aspect * (1 - np.cos(2 * angle))
    if shape in ('triangle', 'square', 'pentagon'):
        sector = 2 * np.pi / {'triangle': 3, 'square': 4, 'pentagon': 5}[shape]
        return np.cos(sector / 2) / np.cos(angle % sector - sector / 2) * 1.15
    if shape == 'star':
        return 0.72 + 0.42 * np.cos(5 * angle)
    if shape == 'flower':
        return 0.8 + 0.3 * np.cos(3 * angle)
    if shape == 'cross':
        arm = np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))
        return np.minimum(1.1 / arm, 0.38 / np.sqrt(np.maximum(1 - arm**2, 1e-4)))
    return np.ones_like(angle)  # a ring is a disc; its inside is cut out later


@DATA_SAMPLERS.register_module()
class FreshSampler(Sampler):
    """Gives every epoch indices that no epoch before it had.

    Epoch ``e`` visits ``e * len(dataset)`` to ``(e + 1) * len(dataset) - 1`` in shuffled order,
    split over the processes. It suits datasets that answer any index, such as
    :class:`ProceduralImages`, and resumes without replaying the epochs before.

    Args:
        dataset (Dataset): The dataset.
        seed (int, optional): Seed of the order. Defaults to one that all processes agree on.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None):
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return iter((self.epoch * self.size + order[self.rank :: self.world_size]).tolist())

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose indices come next."""
        self.epoch = epoch
