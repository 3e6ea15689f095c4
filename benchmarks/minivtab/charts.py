"""The figures of the page: readable on a screen, in print and in greyscale."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import claims
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from verdicts import Judged

from gleam_mm.output import escape
from gleam_mm.output.figures import ACCENT, INK, SOFT, bare, new, parameters_axis, tip, write_names
from gleam_mm.report import paper

# Colour, marker and line of families; print in grey tells the markers and lines apart.
_FAMILIES = {
    'gleam': (ACCENT, 'o', '-'),
    'lora': ('#1f5f8b', 's', '--'),
    'fact': ('#3c8d5a', 'D', '-.'),
    'repadapter': ('#7b4fa0', '^', ':'),
    'ssf': ('#b8860b', 'v', ':'),
}
_OTHERS = (SOFT, 'o', '')
_TITLE = dict(fontsize=11, fontweight='bold', loc='left', color=INK)
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

    @property
    def text(self) -> str:
        """Its numbers, which a tip tells."""
        name = claims.label(self.method)
        return f'{name}: {self.accuracy:.1f} % with {self.parameters:,.0f} parameters'


@dataclass(frozen=True)
class Panel:
    """A panel of a figure of accuracy against parameters.

    Attributes:
        title: What it shows.
        mean: What its accuracies are means of.
        points: The methods.
    """

    title: str
    mean: str
    points: Sequence[Point]


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
    figure = new(1008, 518, layout='constrained')
    axes = figure.subplots(1, 2, width_ratios=(1.5, 1))
    axes[1].set_facecolor('#f4f4f1')
    mean = 'mean of the three group means (%)'
    panels = [
        Panel(title, mean, measured),
        Panel('Quoted from the paper: VTAB-1K, ViT-B/16', mean, quoted),
    ]
    _fill(axes, panels, _NAME_SIZE)
    return figure


def one_above_the_other(panels: Sequence[Panel], named: Collection[str]) -> Figure:
    """Accuracy against parameters in several panels, narrow enough for a telephone.

    Args:
        panels: What each shows.
        named: The methods whose names are written; a tip names the others.
    """
    figure = new(480, 320 * len(panels), layout='constrained')
    figure.get_layout_engine().set(hspace=0.05)
    _fill(figure.subplots(len(panels)), panels, 10, named)
    return figure


def _fill(
    axes: Sequence[Axes], panels: Sequence[Panel], size: float, named: Collection[str] | None = None
) -> None:
    """Draws panels; names have a size, and all points one unless it is said which."""
    # The names of GLEAM choose their places first.
    ordered = [
        sorted(panel.points, key=lambda point: (point.family != 'gleam', -point.accuracy))
        for panel in panels
    ]
    across = []
    for ax, panel, points in zip(axes, panels, ordered, strict=True):
        ax.set_title(panel.title, **_TITLE)
        across.append(_scatter(ax, points, max(9, size)))
        ax.set_ylabel(panel.mean)
    for ax, points, places in zip(axes, ordered, across, strict=True):
        write_names(
            ax,
            [(place, point.accuracy) for place, point in zip(places, points, strict=True)],
            [
                escape.figure(point.name) if named is None or point.method in named else ''
                for point in points
            ],
            radius=4,
            fontsize=[size] * len(points),
            fontweight=['bold' if point.family == 'gleam' else 'normal' for point in points],
            color=[_FAMILIES.get(point.family, _OTHERS)[0] for point in points],
        )


def _scatter(ax: Axes, points: Sequence[Point], size: float) -> list[float]:
    """Draws the points; returns where each stands on the axis of parameters."""
    bare(ax, size)
    place = parameters_axis(ax, [point.parameters for point in points])
    for family, (colour, _, dashes) in _FAMILIES.items():
        kin = sorted(
            (p for p in points if p.family == family and p.joined), key=lambda p: p.parameters
        )
        if len(kin) > 1:
            ax.plot(
                [place(point.parameters) for point in kin],
                [point.accuracy for point in kin],
                color=colour,
                linestyle=dashes,
                linewidth=2.2 if family == 'gleam' else 1,
                alpha=1 if family == 'gleam' else 0.7,
                zorder=2,
            )
    for point in points:
        colour, marker, _ = _FAMILIES.get(point.family, _OTHERS)
        mark, _, _ = ax.errorbar(
            place(point.parameters),
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
        tip(mark, point.text)
    ax.margins(y=0.05)
    return [place(point.parameters) for point in points]


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
    figure = new(648, 86 + 21 * len(lines), layout='constrained')
    ax = figure.subplots()
    bare(ax, size=8.5)
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
            color=ACCENT,
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
    ax.set_yticks(range(len(lines)), [name for name, _, _ in lines], color=INK)
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
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.grid(visible=False, axis='y')
    ax.set_xlabel(
        f'points of accuracy against {claims.label(claims.BASELINE)}, right: the variant is better'
        f'{scale}\nDot and bar: mean over tasks and its 95 % interval by t. Ticks: the {tasks} '
        'tasks. At the right: the mean (pairs).'
    )
    return figure


def _signed(value: float, form: str) -> str:
    """A number with its sign, as figures write it; zero has none."""
    return f'{value:+{form}}'.replace('-', '\N{MINUS SIGN}') if value else '0'
