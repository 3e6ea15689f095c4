"""Drawing with NumPy, in batches: random numbers, distances, covers, colours.

MiniVTAB's images are bit for bit the same on every machine. What draws them is made of additions,
multiplications, divisions, square roots and comparisons of float64, which IEEE 754 defines to the
last bit, one NumPy call each, so that nothing is fused or summed in another order. NumPy's own
sine, power, matrix product and sums are not used: their last bits depend on the processor. Random
numbers are the raw stream of Philox, which NumPy keeps as it is.

Images are drawn in batches ``B``. Coordinates run from -1 to 1, x to the right and y down; angles
are counted in whole turns, clockwise on the screen.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

_UNIT = 2.0**-53


class Draws(ABC):
    """Uniform random numbers of a batch of images, and what is made of them."""

    @abstractmethod
    def uniform(self, low: float = 0.0, high: float = 1.0, size: Sequence[int] = ()) -> np.ndarray:
        """Uniform numbers in [low, high), shape ``(B, *size)``."""

    def harmonic(self, low: float, high: float, size: Sequence[int] = ()) -> np.ndarray:
        """Numbers in [low, high) whose reciprocals are uniform, so that small ones prevail."""
        return low * high / (high - (high - low) * self.uniform(size=size))

    def integer(self, count: int, size: Sequence[int] = ()) -> np.ndarray:
        """Integers from 0 to ``count - 1``, shape ``(B, *size)``."""
        return np.floor(self.uniform(0, count, size)).astype(np.int64)

    def chance(self, probability: float) -> np.ndarray:
        """True with the given probability, shape ``(B,)``."""
        return self.uniform() < probability

    def bell(self, size: Sequence[int] = ()) -> np.ndarray:
        """Numbers of mean 0 and standard deviation 1, cut off at 3: a sum of three uniforms."""
        parts = self.uniform(-1.0, 1.0, (3, *size))
        return parts[:, 0] + parts[:, 1] + parts[:, 2]

    def permutation(self, count: int) -> np.ndarray:
        """A random order of ``count`` things for each image, ``(B, count)``."""
        return np.argsort(self.uniform(size=(count,)), axis=1, kind='stable')


class Streams(Draws):
    """Numbers in float64 without end, each image with a stream of its own.

    What an image gets depends on its own seed and its own earlier draws, never on the other images
    of the batch.

    Args:
        seeds (Sequence[str]): A name for each image, from which its stream follows.
    """

    def __init__(self, seeds: Sequence[str]):
        self._streams = []
        for seed in seeds:
            key = np.frombuffer(hashlib.sha256(seed.encode()).digest()[:16], '<u8')
            self._streams.append(np.random.Philox(key=key.astype(np.uint64)))

    def __len__(self) -> int:
        return len(self._streams)

    def take(self, rows: np.ndarray) -> 'Streams':
        """The streams of some images; drawing from them goes on with the same streams."""
        part = Streams(())
        part._streams = [self._streams[row] for row in rows]
        return part

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Sequence[int] = ()) -> np.ndarray:
        """Uniform numbers in [low, high), shape ``(B, *size)``."""
        count = math.prod(size)
        raw = np.empty((len(self), count), np.uint64)
        for row, stream in enumerate(self._streams):
            raw[row] = stream.random_raw(count)
        numbers = (raw >> np.uint64(11)).astype(np.float64) * _UNIT
        return low + (high - low) * numbers.reshape(-1, *size)

    def grain(self, size: int, channels: int = 3) -> np.ndarray:
        """White noise for every pixel, in [-1, 1], ``(B, size, size, channels)``."""
        words = -(-size * size * channels // 8)
        raw = np.empty((len(self), words), '<u8')
        for row, stream in enumerate(self._streams):
            raw[row] = stream.random_raw(words)
        values = raw.view(np.uint8)[:, : size * size * channels].astype(np.float64)
        return values.reshape(-1, size, size, channels) / 127.5 - 1


class Columns(Draws):
    """Numbers that were drawn before, the columns of an array ``(B, N)``, handed out in turn."""

    def __init__(self, numbers: np.ndarray):
        self._numbers = numbers
        self._next = 0

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Sequence[int] = ()) -> np.ndarray:
        """Uniform numbers in [low, high), shape ``(B, *size)``, of the array's type.

        Raises:
            RuntimeError: The array has too few columns.
        """
        stop = self._next + math.prod(size)
        if stop > self._numbers.shape[1]:
            raise RuntimeError(f'more than the {self._numbers.shape[1]} numbers set aside are used')
        columns = self._numbers[:, self._next : stop].reshape(-1, *size)
        self._next = stop
        return low + (high - low) * columns


def broad(values: np.ndarray, axes: int = 2) -> np.ndarray:
    """Appends axes, so that one value an image meets its pixels."""
    return values.reshape(values.shape + (1,) * axes)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres x and y, ``(1, size, size)`` each."""
    axis = (2 * np.arange(size) + 1) / size - 1
    x = np.broadcast_to(axis[None, None, :], (1, size, size))
    y = np.broadcast_to(axis[None, :, None], (1, size, size))
    return x, y


def sin(turns: np.ndarray) -> np.ndarray:
    """Sine of an angle in turns, accurate to 1e-7."""
    t = turns - np.floor(turns + 0.5)  # -1/2 to 1/2
    t = np.where(t > 0.25, 0.5 - t, np.where(t < -0.25, -0.5 - t, t))
    s = t * t
    # Taylor series in 2 pi t, up to the 11th power.
    total = np.full_like(s, -15.094642576822984)
    for coefficient in (
        42.058693944897634,
        -76.70585975306139,
        81.60524927607506,
        -41.341702240399755,
        6.283185307179586,
    ):
        total = total * s + coefficient
    return np.clip(total * t, -1, 1)


def cos(turns: np.ndarray) -> np.ndarray:
    """Cosine of an angle in turns."""
    return sin(turns + 0.25)


def length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean length."""
    return np.sqrt(x * x + y * y)


def rotate(x: np.ndarray, y: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates as seen from axes that are turned by ``turns``, which broadcasts."""
    c, s = cos(turns), sin(turns)
    return c * x + s * y, c * y - s * x


def step(x: np.ndarray) -> np.ndarray:
    """A smooth step from 0 (below -1) to 1 (above 1)."""
    t = np.clip(0.5 + 0.5 * x, 0, 1)
    return t * t * (3 - 2 * t)


def cover(distance: np.ndarray, soft: np.ndarray | float) -> np.ndarray:
    """How much of a pixel a shape covers, 0 to 1, from its signed distance (negative inside)."""
    return step(-distance / soft)


def falloff(squared: np.ndarray) -> np.ndarray:
    """A bell from 1 at 0 to 0 at 1 and beyond, of a squared distance."""
    t = np.clip(1 - squared, 0, 1)
    return t * t


def to_segment(
    x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of pixels to one segment an image, and where along it (0 to 1) the closest point is.

    Args:
        x, y: Pixel coordinates, ``(B or 1, H, W)``.
        start, end: Ends of the segments, ``(B, 2)``.
    """
    ax, ay = broad(start[:, 0]), broad(start[:, 1])
    dx, dy = broad(end[:, 0]) - ax, broad(end[:, 1]) - ay
    squared = np.maximum(dx * dx + dy * dy, 1e-9)
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / squared, 0, 1)
    return length(x - ax - along * dx, y - ay - along * dy), along


def to_polyline(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance of pixels to polylines through ``points`` ``(B, P, 2)``."""
    distance = None
    for p in range(points.shape[1] - 1):
        one, _ = to_segment(x, y, points[:, p], points[:, p + 1])
        distance = one if distance is None else np.minimum(distance, one)
    return distance


def to_points(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance of pixels to the closest of ``points`` ``(B, P, 2)``."""
    squared = np.inf
    for p in range(points.shape[1]):
        dx, dy = broad(points[:, p, 0]) - x, broad(points[:, p, 1]) - y
        squared = np.minimum(squared, dx * dx + dy * dy)
    return np.sqrt(squared)


def polygon(x: np.ndarray, y: np.ndarray, corners: int, radius: np.ndarray) -> np.ndarray:
    """Signed distance to a regular polygon around the origin, one corner up (bound outside)."""
    distance = None
    for side in range(corners):
        turn = np.float64((side + 0.5) / corners - 0.25)
        one = cos(turn) * x + sin(turn) * y
        distance = one if distance is None else np.maximum(distance, one)
    return distance - radius * cos(np.float64(0.5 / corners))


def box(x: np.ndarray, y: np.ndarray, half_x: np.ndarray, half_y: np.ndarray) -> np.ndarray:
    """Signed distance to a box around the origin (a bound outside its corners)."""
    return np.maximum(np.abs(x) - half_x, np.abs(y) - half_y)


def noise(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise: values at the points of a lattice over [-1, 1], interpolated.

    Args:
        values: ``(B, rows, columns)``.
        x, y: Where, ``(B or 1, H, W)``; places outside of the lattice see its edge.
    """
    batch, rows, columns = values.shape
    u = np.clip((x + 1) * 0.5, 0, 1) * (columns - 1)
    v = np.clip((y + 1) * 0.5, 0, 1) * (rows - 1)
    left, top = np.minimum(np.floor(u), columns - 2), np.minimum(np.floor(v), rows - 2)
    fx, fy = u - left, v - top
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    i, j = top.astype(np.int64), left.astype(np.int64)
    image = np.arange(batch)[:, None, None]
    upper = values[image, i, j] * (1 - fx) + values[image, i, j + 1] * fx
    lower = values[image, i + 1, j] * (1 - fx) + values[image, i + 1, j + 1] * fx
    return upper * (1 - fy) + lower * fy


def fractal(
    u: Draws, x: np.ndarray, y: np.ndarray, cells: Sequence[int], fade: float = 0.5
) -> np.ndarray:
    """A sum of smooth noises, about -1 to 1, each with ``fade`` times the weight of the last."""
    total, weight, weights = 0.0, 1.0, 0.0
    for number in cells:
        total = total + weight * noise(u.uniform(-1, 1, (number, number)), x, y)
        weights += weight
        weight *= fade
    return total * (1.6 / weights)


def warp(
    u: Draws, x: np.ndarray, y: np.ndarray, amount: np.ndarray, cells: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates bent elastically by up to ``amount`` ``(B,)``."""
    amount = broad(amount)
    bent_x = x + amount * noise(u.uniform(-1, 1, (cells, cells)), x, y)
    bent_y = y + amount * noise(u.uniform(-1, 1, (cells, cells)), x, y)
    return bent_x, bent_y


def voronoi(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distances to the closest and the second closest of ``points`` ``(B, P, 2)``, and which."""
    first = second = nearest = None
    for p in range(points.shape[1]):
        one = length(x - broad(points[:, p, 0]), y - broad(points[:, p, 1]))
        if first is None:
            first, second = one, np.full_like(one, 9.0)
            nearest = np.zeros(one.shape, np.int64)
        else:
            closer = one < first
            second = np.where(closer, first, np.minimum(second, one))
            nearest = np.where(closer, p, nearest)
            first = np.minimum(first, one)
    return first, second, nearest


def two_colours(
    u: Draws, low: float = 0.25, high: float = 0.8, tint: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Two colours ``(B, 1, 1, 3)``, ``low`` to ``high`` apart in brightness, in either order."""
    gap = u.uniform(low, high)
    dark = u.uniform() * (1 - gap)
    tints = u.uniform(-tint, tint, (2, 3))
    one = np.clip(dark[:, None] + tints[:, 0], 0, 1)
    two = np.clip((dark + gap)[:, None] + tints[:, 1], 0, 1)
    flip = u.chance(0.5)[:, None]
    one, two = np.where(flip, two, one), np.where(flip, one, two)
    return one[:, None, None], two[:, None, None]


def mix(back: np.ndarray, front: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Lays colours over an image where ``amount`` ``(B, H, W)`` is 1, all ``(..., 3)``."""
    return back + (front - back) * amount[..., None]


def light(u: Draws, x: np.ndarray, y: np.ndarray, amount: float) -> np.ndarray:
    """Uneven light to add to an image, ``(B, H, W, 1)``."""
    strength = broad(u.uniform(0, amount))
    return (strength * noise(u.uniform(-1, 1, (3, 3)), x, y))[..., None]


def quantise(image: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] as bytes."""
    return np.floor(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
