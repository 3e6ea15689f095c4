"""A few lines of SVG: shapes, axes and labels that keep out of each other's way."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: 'Box') -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)

    def outside(self, other: 'Box') -> float:
        """The area that ``other`` does not cover."""
        area = (self.right - self.left) * (self.bottom - self.top)
        return area - self.overlap(other)


class Drawing:
    """An SVG drawing.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        title: What it shows, for those who cannot see it.
        kind: Class of the element, for styles.
    """

    def __init__(self, width: float, height: float, title: str, kind: str) -> None:
        self.width, self.height, self.title, self.kind = width, height, title, kind
        self._parts: list[str] = []

    def add(self, tag: str, tip: str = '', **attributes: object) -> None:
        """Adds an element.

        Args:
            tag: Its name.
            tip: What to show while the pointer is on it.
            **attributes: Its attributes; ``_`` stands for ``-``, and ``class_`` is ``class``.
        """
        content = f'<title>{escape(tip)}</title>' if tip else ''
        self._parts.append(f'<{tag}{_attributes(attributes)}>{content}</{tag}>')

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str, **more: object) -> None:
        """Adds a line."""
        self.add('line', x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **more)

    def text(self, x: float, y: float, text: str, class_: str, **more: object) -> None:
        """Adds text; (x, y) is where its base line starts, or what ``text_anchor`` says."""
        attributes = _attributes(dict(x=x, y=y, class_=class_, **more))
        self._parts.append(f'<text{attributes}>{escape(text)}</text>')

    def path(
        self, points: Iterable[tuple[float, float] | None], class_: str, **more: object
    ) -> None:
        """Adds a line through points; None interrupts it."""
        commands, pen = [], 'M'
        for point in points:
            if point is None:
                pen = 'M'
                continue
            commands.append(f'{pen}{_short(point[0])},{_short(point[1])}')
            pen = 'L'
        self.add('path', d=''.join(commands), class_=class_, **more)

    def __str__(self) -> str:
        return (
            f'<svg class="{self.kind}" viewBox="0 0 {_short(self.width)} {_short(self.height)}" '
            f'role="img" aria-label="{escape(self.title)}">{"".join(self._parts)}</svg>'
        )


def _attributes(attributes: dict[str, object]) -> str:
    return ''.join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for name, value in attributes.items()
        if value is not None
    )


def _short(value: object) -> str:
    return f'{value:.2f}'.rstrip('0').rstrip('.') if isinstance(value, float) else str(value)


def text_width(text: str, size: float) -> float:
    """About how wide a text is, in bold and in a wide font.

    Args:
        text: The text.
        size: Font size.
    """
    return size * sum(0.76 if character.isupper() else 0.6 for character in text)


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``.

    Args:
        low: The smallest number to show.
        high: The largest number to show.
        count: About how many.
    """
    span = (high - low) or abs(high) or 1.0
    rough = span / max(count - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    size: float,
    area: Box,
    radius: float = 6,
) -> list[tuple[float, float, bool]]:
    """Finds places for the labels of points where they cover neither points nor each other.

    Args:
        points: The points.
        texts: Their labels; earlier ones choose first, empty ones need no place.
        size: Font size.
        area: Where labels may be.
        radius: Half the width of a point.

    Returns:
        For each label where its base line starts, and whether it is so far off that it needs a line
        to its point.
    """
    dots = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    taken: list[Box] = []
    places = []
    for (x, y), text in zip(points, texts, strict=True):
        if not text:
            places.append((x, y, False))
            continue
        width = text_width(text, size)
        best = None
        for ring, distance in enumerate((radius + 4, 20, 34, 50, 68)):
            for turn, angle in enumerate((0, 180, -90, 90, -45, 45, -135, 135, -20, 20, -160, 160)):
                dx = math.cos(math.radians(angle)) * distance
                dy = math.sin(math.radians(angle)) * distance
                left = x + dx - width * (1 - math.cos(math.radians(angle))) / 2
                box = Box(left, y + dy - size * 0.55, left + width, y + dy + size * 0.5)
                cost = (
                    sum(box.overlap(other) for other in (*taken, *dots))
                    + 10 * box.outside(area)
                    + ring * 12
                    + turn
                )
                if best is None or cost < best[0]:
                    best = cost, box, ring
        taken.append(best[1])
        places.append((best[1].left, best[1].bottom - size * 0.2, best[2] > 0))
    return places
