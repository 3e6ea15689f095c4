"""The figures of the page, as SVG and PNG: readable on a screen, in print and in greyscale."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import claims
import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from verdicts import Judged

from gleam_mm.fileio import write_bytes
from gleam_mm.report import paper
from gleam_mm.report.svg import Box, place_labels

_RED, _GREY = '#8f1b2b', '#55606e'
# Colour, marker and line of families; print in grey tells the markers and lines apart.
_FAMILIES = {
    'gleam': (_RED, 'o', '-'),
    'lora': ('#1f5f8b', 's', '--'),
    'fact': ('#3c8d5a', 'D', '-.'),
    'repadapter': ('#7b4fa0', '^', ':'),
    'ssf': ('#b8860b', 'v', ':'),
}
_OTHERS = (_GREY, 'o', '')
_TITLE = dict(fontsize=11, fontweight='bold', loc='left')
_NAME_SIZE = 7.5
_WIDEST = 12  # points of accuracy that a linear axis of differences may reach to either side
_LINEAR = 4  # where else the logarithmic one begins


@dataclass(frozen=True)
class Point:
    """A method in the front.

    Attributes:
        method: Name of the method or variant.
        parameters: Trained numbers, head excluded.
        accuracy: Mean of the group means in %.
        deviation: Standard deviation over seeds; None of one seed.
    """

    method: str
    parameters: float
    accuracy: float
    deviation: float | None = None

    @property
    def family(self) -> str | None:
        """The family that it belongs to."""
        if self.method in claims.GLEAM:
            return 'gleam'
        for family in claims.OPPONENTS:
            if self.method == family or claims.is_variant(self.method, family):
                return family
        return None

    @property
    def joined(self) -> bool:
        """Whether its family's line goes through it: not where more than its size differs."""
        size = self.method.removeprefix(f'{self.family}-')
        return self.method in (*claims.GLEAM, self.family) or bool(re.fullmatch(r'[a-z]\d+', size))

    @property
    def name(self) -> str:
        """How the figure calls it; a variant beside its family's line by what tells it apart."""
        if self.joined and self.method not in (*claims.GLEAM, self.family):
            return self.method.removeprefix(f'{self.family}-')
        return claims.label(self.method)


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as SVG and as PNG, with the same bytes for the same figure.

    Args:
        figure: The figure.
        path: Where to, without the suffix.

    Returns:
        The two files.
    """
    FigureCanvasAgg(figure)
    written = []
    for suffix, options in (('svg', {'metadata': {'Date': None}}), ('png', {'dpi': 160})):
        buffer = io.BytesIO()
        with matplotlib.rc_context({'svg.hashsalt': path.name}):
            figure.savefig(buffer, format=suffix, **options)
        written.append(path.parent / f'{path.name}.{suffix}')
        write_bytes(written[-1], buffer.getvalue())
    return written


def front(measured: Sequence[Point], title: str) -> Figure:
    """Accuracy against parameters (the paper's figure 1), and the paper's numbers beside it.

    Args:
        measured: The methods that have all tasks.
        title: What the measured panel shows.
    """
    quoted = [
        Point(method, float(row.parameters) * 1e6, row.average)
        for method, row in paper.rows(paper.VTAB, 'vit-b').items()
        if row.average is not None
    ]
    # The names of GLEAM choose their places first.
    panels = [
        sorted(points, key=lambda point: (point.family != 'gleam', -point.accuracy))
        for points in (measured, quoted)
    ]
    figure = Figure(figsize=(14, 7.2), layout='constrained')
    axes = figure.subplots(1, 2, width_ratios=(1.5, 1))
    axes[0].set_title(title, **_TITLE)
    axes[1].set_title('Quoted from the paper: VTAB-1K, ViT-B/16', **_TITLE)
    across = [_scatter(ax, points) for ax, points in zip(axes, panels, strict=True)]
    axes[1].set_facecolor('#f4f4f1')
    figure.draw_without_rendering()  # the places of names depend on the axes' sizes, fixed now
    figure.set_layout_engine('none')
    for arguments in zip(axes, panels, across, strict=True):
        _write_names(*arguments)
    return figure


def _scatter(ax: Axes, points: Sequence[Point]) -> list[float]:
    """Draws the points; returns where each stands on the axis of powers of ten."""
    sizes = [math.log10(point.parameters) for point in points if point.parameters] or [3.0]
    nothing = math.floor(min(sizes)) - 0.5  # where a method without parameters stands

    def place(point: Point) -> float:
        return math.log10(point.parameters) if point.parameters else nothing

    for family, (colour, _, dashes) in _FAMILIES.items():
        kin = sorted(
            (p for p in points if p.family == family and p.joined), key=lambda p: p.parameters
        )
        if len(kin) > 1:
            ax.plot(
                [place(point) for point in kin],
                [point.accuracy for point in kin],
                color=colour,
                linestyle=dashes,
                linewidth=2.2 if family == 'gleam' else 1,
                alpha=1 if family == 'gleam' else 0.7,
                zorder=2,
            )
    for point in points:
        colour, marker, _ = _FAMILIES.get(point.family, _OTHERS)
        ax.errorbar(
            place(point),
            point.accuracy,
            yerr=point.deviation or None,
            color=colour,
            marker=marker,
            markersize=8 if point.family == 'gleam' else 5.5,
            markeredgecolor='white',
            markeredgewidth=0.5,
            elinewidth=1,
            capsize=2,
            zorder=4 if point.family == 'gleam' else 3,
        )
    powers = range(math.ceil(min(sizes) - 0.3), math.floor(max(sizes) + 0.3) + 1)
    ticks = {power: f'$10^{{{power}}}$' for power in powers}
    if any(not point.parameters for point in points):
        gap = (nothing + min(ticks)) / 2 if ticks else nothing
        ticks = {nothing: '0', **ticks}
        ax.text(gap, 0, '//', transform=ax.get_xaxis_transform(), ha='center', va='center')
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set_xlim(min([*sizes, *ticks]) - 0.2, max(sizes) + 0.55)
    ax.margins(y=0.05)
    ax.set_xlabel('trained parameters, head excluded', fontsize=9.5)
    ax.set_ylabel('mean of the three group means (%)', fontsize=9.5)
    ax.tick_params(labelsize=9)
    ax.grid(color='#dddddd', linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
    return [place(point) for point in points]


def _write_names(ax: Axes, points: Sequence[Point], across: Sequence[float]) -> None:
    """Puts names where they cover neither points nor each other."""
    figure = ax.get_figure()
    scale = 72 / figure.dpi
    height = figure.get_figheight() * 72
    box = ax.get_window_extent()
    area = Box(box.x0 * scale, height - box.y1 * scale, box.x1 * scale, height - box.y0 * scale)
    places = []
    for x, point in zip(across, points, strict=True):
        right, up = ax.transData.transform((x, point.accuracy)) * scale
        places.append((right, height - up))  # from the top, as place_labels counts
    names = [point.name for point in points]
    found = place_labels(places, names, _NAME_SIZE, area, radius=4)
    for (x, y), (left, base, far), point in zip(places, found, points, strict=True):
        ax.annotate(
            point.name,
            xy=(x, height - y),
            xytext=(left, height - base),
            xycoords='figure points',
            textcoords='figure points',
            fontsize=_NAME_SIZE,
            fontweight='bold' if point.family == 'gleam' else 'normal',
            color=_FAMILIES.get(point.family, _OTHERS)[0],
            path_effects=[withStroke(linewidth=2, foreground=ax.get_facecolor())],
            zorder=5,
            arrowprops=dict(arrowstyle='-', color='#999999', linewidth=0.6, shrinkA=0, shrinkB=3)
            if far
            else None,
        )


def differences(sections: Mapping[str, Sequence[Judged]], tasks: int) -> Figure:
    """What each variant gains over the baseline: a dot with its interval, and a tick a task.

    Args:
        sections: Head -> comparisons of the baseline with variants, in either order.
        tasks: How many tasks there are.
    """
    heads, lines = [], []
    for head, judged in sections.items():
        heads.append(len(lines))
        lines.append((head, None, 0))
        for one in judged:
            sign = 1 if one.comparison.second == claims.BASELINE else -1
            lines.append((one.comparison.about, one.paired, sign))
    figure = Figure(figsize=(9, 1.2 + 0.29 * len(lines)), layout='constrained')
    ax = figure.subplots()
    ax.axvline(0, color='black', linewidth=0.8)
    reach = 0.0
    for place, (_, paired, sign) in enumerate(lines):
        if paired is None:
            if place not in heads:
                ax.text(0, place, '  no data', va='center', fontsize=8, color='#777777')
            continue
        values = [sign * value for value in paired.tasks.values()]
        reach = max(reach, *map(abs, values))
        ax.plot(values, [place] * len(values), '|', color='#8a8a8a', markersize=7, zorder=2)
        ax.errorbar(
            sign * paired.mean,
            place,
            xerr=paired.half_width,
            color=_RED,
            marker='o',
            markersize=6,
            elinewidth=1.8,
            capsize=3,
            zorder=3,
        )
        ax.annotate(
            f'{_signed(sign * paired.mean, ".2f")}  ({paired.pairs})',
            xy=(1.01, place),
            xycoords=('axes fraction', 'data'),
            va='center',
            fontsize=8,
            annotation_clip=False,
        )
    ax.set_yticks(range(len(lines)), [name for name, _, _ in lines], fontsize=8.5)
    for place in heads:
        ax.get_yticklabels()[place].set_fontweight('bold')
    scale = ''
    if reach > _WIDEST:
        ax.set_xscale('symlog', linthresh=_LINEAR, linscale=1.5)
        marks = [mark for mark in (1, 2, 4, 8, 16, 32, 64) if mark < 1.5 * reach]
        marks = [-mark for mark in reversed(marks)] + [0] + marks
        ax.set_xticks(marks, [_signed(mark, 'd') for mark in marks])
        ax.set_xticks([], minor=True)
        scale = f'; logarithmic beyond {_LINEAR}'
    ax.tick_params(axis='y', length=0)
    ax.tick_params(axis='x', labelsize=8.5)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.grid(axis='x', color='#e2e2e2', linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[['top', 'right', 'left']].set_visible(False)
    ax.set_xlabel(
        f'points of accuracy against {claims.label(claims.BASELINE)}, right: the variant is better'
        f'{scale}\nDot and bar: mean over tasks and its 95 % interval by t. Ticks: the {tasks} '
        'tasks. At the right: the mean (pairs).',
        fontsize=8.5,
    )
    return figure


def _signed(value: float, form: str) -> str:
    """A number with its sign, as figures write it; zero has none."""
    return f'{value:+{form}}'.replace('-', '\N{MINUS SIGN}') if value else '0'
