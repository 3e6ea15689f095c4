"""Figures on Matplotlib, as SVG and PNG, with the same bytes for the same figure.

A name that is drawn passes through :func:`gleam_mm.output.escape.figure` first.
"""

import colorsys
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from gleam_mm.fileio import write_bytes
from gleam_mm.output import escape

INK, SOFT, RULE, ACCENT = '#1b1f24', '#5b6470', '#e2e5e9', '#8f1b2b'
_TIP = 'tip: '
_DPI = {'png': 160}
# Where a name may stand around its point: distances from its rim in points, directions in degrees.
_RINGS = (4, 14, 28, 44, 62)
_TURNS = (0, 180, 90, -90, 45, -45, 135, -135, 20, -20, 160, -160)


def new(width: float, height: float, **options: object) -> Figure:
    """A figure of a size in points, which pages show as pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, **options)


def panel(width: float, height: float, left: float, right: float, bottom: float) -> Axes:
    """A small figure's axes, with fixed margins: those of many figures are drawn faster so.

    Args:
        width: Of the figure, in points.
        height: Of the figure.
        left: Margin for the labels of y.
        right: Margin.
        bottom: Margin for the labels of x.
    """
    size = [
        left / width,
        bottom / height,
        (width - left - right) / width,
        1 - (bottom + 6) / height,
    ]
    ax = new(width, height).add_axes(size)
    bare(ax)
    return ax


def tip(artist: Artist, text: str) -> None:
    """Gives a mark a text that an SVG shows while the pointer is on it."""
    artist.set_gid(_TIP + escape.terminal(text))


def save(figure: Figure, path: Path, *suffixes: str) -> list[Path]:
    """Writes a figure.

    Args:
        figure: The figure.
        path: Where to, without the suffix.
        suffixes: Some of ``svg``, ``png``, and ``dark.svg``, the first one for dark pages.

    Returns:
        The files.
    """
    written = []
    for suffix in suffixes:
        data = _render(figure, suffix, path.name) if suffix == 'png' else _svg(figure, path.name)
        if suffix == 'dark.svg':
            data = re.sub(rb'(?<=: )#[0-9a-f]{6}', _dark, data)
        written.append(path.parent / f'{path.name}.{suffix}')
        write_bytes(written[-1], data)
    return written


def inline_svg(figure: Figure, title: str, kind: str) -> str:
    """A figure as an element of an HTML page.

    Args:
        figure: The figure.
        title: What it shows, for those who cannot see it; of its own on the page, since the names
            of what a figure refers to within itself are made of it.
        kind: Class of the element, for styles.
    """
    root = _tree(figure, escape.terminal(title))
    root.attrib = {
        'class': kind,
        'viewBox': root.attrib['viewBox'],
        'role': 'img',
        'aria-label': escape.terminal(title),
        'style': root.attrib['style'],
    }
    return ElementTree.tostring(root, encoding='unicode')


def _svg(figure: Figure, salt: str) -> bytes:
    root = _tree(figure, salt)
    root.set('xmlns', 'http://www.w3.org/2000/svg')
    return ElementTree.tostring(root, encoding='utf-8', xml_declaration=True) + b'\n'


def _dark(colour: re.Match[bytes]) -> bytes:
    """A colour for dark pages: as dark as it was light, of the same hue."""
    hue, light, saturation = colorsys.rgb_to_hls(*to_rgb(colour[0].decode()))
    return to_hex(colorsys.hls_to_rgb(hue, 0.98 - 0.91 * light, saturation)).encode()


def _render(figure: Figure, suffix: str, salt: str) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    # Text stays text: it can be searched, and takes a page's own font.
    with matplotlib.rc_context({'svg.hashsalt': salt, 'svg.fonttype': 'none'}):
        figure.savefig(buffer, format=suffix, dpi=_DPI.get(suffix, 'figure'))
    return buffer.getvalue()


def _tree(figure: Figure, salt: str) -> ElementTree.Element:
    """Matplotlib's SVG without its metadata, which have the time, and with tips."""
    data = _render(figure, 'svg', salt)
    referred = set(re.findall(r'#([\w-]+)', data.decode()))
    root = ElementTree.fromstring(data)
    for parent in root.iter():
        parent.tag = parent.tag.rpartition('}')[2]
        parent.attrib = {name.rpartition('}')[2]: value for name, value in parent.attrib.items()}
        for child in list(parent):
            if child.tag.endswith(('}metadata', '}style')):
                parent.remove(child)
        found = parent.get('id', '')
        if found not in referred:
            parent.attrib.pop('id', None)
        if found.startswith(_TIP):
            parent.insert(0, ElementTree.Element('title'))
            parent[0].text = found.removeprefix(_TIP)
    root.set('style', 'stroke-linejoin: round; stroke-linecap: butt')  # as the style that went
    return root


def bare(ax: Axes, size: float = 9) -> None:
    """Takes away what a chart does not need, and sets the rest off less than its marks."""
    ax.spines[['top', 'right', 'left']].set_visible(False)
    ax.spines['bottom'].set_color('#6b747f')
    ax.tick_params(length=0, labelsize=size, labelcolor=SOFT)
    ax.xaxis.label.set(size=size, color=SOFT)
    ax.yaxis.label.set(size=size, color=SOFT)
    ax.grid(color=RULE, linewidth=0.8)
    ax.set_axisbelow(True)


def parameters_axis(ax: Axes, sizes: Iterable[float]) -> Callable[[float], float]:
    """Makes x a logarithmic axis of numbers of parameters; 0 stands at the left of a gap.

    Args:
        ax: Where to draw.
        sizes: The numbers of parameters that are to be drawn.

    Returns:
        What gives the place on the axis of a number of parameters.
    """
    sizes = list(sizes)
    powers = [math.log10(size) for size in sizes if size] or [3.0]
    nothing = math.floor(min(powers)) - 0.5
    whole = range(math.ceil(min(powers) - 0.3), math.floor(max(powers) + 0.3) + 1)
    if not whole:  # all are between the same two, which tell how large they are
        whole = range(math.floor(min(powers)), math.ceil(max(powers)) + 1)
    ticks = {float(power): _power_of_ten(power) for power in whole}
    if not all(sizes):
        gap = (nothing + min(ticks, default=nothing)) / 2
        middle = dict(transform=ax.get_xaxis_transform(), ha='center', va='center', color=INK)
        ax.text(gap, 0, '//', **middle)
        ticks = {nothing: '0', **ticks}
    ax.set_xticks(list(ticks), list(ticks.values()))
    end = max(max(powers) + 0.4, max(ticks) + 0.1)
    ax.set_xlim(min([*powers, *ticks]) - 0.2, end)
    ax.set_xlabel('trained parameters, head excluded')
    return lambda size: math.log10(size) if size else nothing


def _power_of_ten(power: int) -> str:
    thousands, rest = divmod(power, 3)
    return f'{10**rest}{("", " K", " M", " B")[thousands]}'


def write_names(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    radius: float,
    **style: Sequence,
) -> None:
    """Writes names of points where they cover neither points nor each other.

    A name that has to stand far off gets a line to its point. Fixes the figure's layout.

    Args:
        ax: Where the points are.
        points: The points in data coordinates.
        names: Their names; earlier ones choose first, empty ones need no place.
        radius: Half the width of a point.
        **style: By property of texts, its value for each name.
    """
    figure = ax.get_figure()
    figure.draw_without_rendering()  # the places of names depend on the axes' sizes, fixed now
    figure.set_layout_engine('none')
    scale = 72 / figure.dpi
    area = ax.get_window_extent().extents * scale
    places = ax.transData.transform(points) * scale
    taken = [np.array([x - radius, y - radius, x + radius, y + radius]) for x, y in places]
    for index, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        if not name:
            continue
        properties = {key: values[index] for key, values in style.items()}
        text = ax.annotate(
            name,
            points[index],
            xytext=(0, 0),
            textcoords='offset points',
            va='center',
            bbox=dict(facecolor=ax.get_facecolor(), alpha=0.7, linewidth=0, pad=0.5),
            arrowprops=dict(arrowstyle='-', color='#b6bdc6', linewidth=0.8, shrinkA=0, shrinkB=3),
            zorder=5,
            **properties,
        )
        width, height = Text.get_window_extent(text).size * scale
        best, least = None, math.inf
        for ring, distance in enumerate(_RINGS):
            for turn, degrees in enumerate(_TURNS):
                across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
                left = x + across * (radius + distance) - width * (1 - across) / 2
                low = y + up * (radius + distance) - height / 2
                box = np.array([left, low, left + width, low + height])
                cost = _covered(box, np.array(taken)).sum() + ring * 12 + turn
                cost += 10 * (width * height - _covered(box, area[None])[0])
                if cost < least:
                    best, least, far = box, cost, ring > 0
        taken.append(best)
        text.xyann = best[0] - x, (best[1] + best[3]) / 2 - y
        text.arrow_patch.set_visible(far)


def _covered(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The areas that a box (left, low, right, high) has in common with others, of shape (n, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.clip(sides, 0, None).prod(1)
