"""The figures of the report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gleam_mm.output import escape
from gleam_mm.output.figures import (
    INK,
    SOFT,
    bare,
    new,
    panel,
    parameters_axis,
    tip,
    write_names,
)
from gleam_mm.report import paper
from gleam_mm.report.suites import Suite
from gleam_mm.report.trials import Row, Score

# Warm colours for GLEAM, cool ones for the rest; told apart in print and by most eyes.
_GLEAM = {'GLEAM-T': '#e08a1e', 'GLEAM-B': '#cc4a25', 'GLEAM-L': '#8f1b2b', 'GLEAM': '#8f1b2b'}
_WARM = ('#b8860b', '#e4572e', '#b23a62', '#6b2d1a')
_COOL = (
    '#1f5f8b',
    '#3c8d5a',
    '#7b4fa0',
    '#3aa0b5',
    '#55606e',
    '#7f8f2c',
    '#2b3f87',
    '#6fa8dc',
    '#8a6d4b',
    '#1d7874',
)
_DASHES = ('-', (0, (5, 3)), (0, (2, 2)))
_PANEL = 300  # width of a small figure in points
_LONGEST_NAME = 19


class Palette:
    """A colour for each method, the same in all figures.

    Args:
        names: The methods, as tables call them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._styles = {name: (_GLEAM[name], _DASHES[0]) for name in names if name in _GLEAM}
        rest = [name for name in names if name not in _GLEAM]
        for colours, kin in ((_WARM, True), (_COOL, False)):
            chosen = [name for name in rest if name.startswith('GLEAM') == kin]
            for place, name in enumerate(chosen):
                turn, colour = divmod(place, len(colours))
                self._styles[name] = colours[colour], _DASHES[turn % len(_DASHES)]

    def colour(self, name: str) -> str:
        """The colour of a method."""
        return self._styles[name][0]

    def line(self, name: str) -> dict[str, object]:
        """The style of a method's lines."""
        colour, dashes = self._styles[name]
        return {'color': colour, 'linestyle': dashes}


class _Mark(NamedTuple):
    """A point of the trade-off: ``method`` is the name without a remark."""

    name: str
    method: str
    parameters: float
    accuracy: float
    deviation: float | None = None
    measured: bool = False


def trade_off(
    suite: Suite, backbone: str, rows: Sequence[Row], palette: Palette
) -> tuple[Figure, str] | None:
    """Accuracy against parameters, the paper's Figure 1.

    Methods with all tasks are drawn by their average. Where no method has all, but all methods have
    some tasks in common, the mean over these is drawn instead, and called that.

    Args:
        suite: The suite.
        backbone: The backbone of the rows.
        rows: What was measured.
        palette: The colours.

    Returns:
        The figure and its caption; None where there is nothing measured to draw.
    """
    measured = {row: row.average(suite) for row in rows if row.parameters is not None}
    published = paper.rows(suite.key, backbone)
    quoted = {method: row.average for method, row in published.items()}
    scores = {row: score for row, score in measured.items() if score}
    if scores:
        axis = 'average accuracy (%)'
        averaged = 'the group means' if len(suite.groups) > 1 else 'all tasks'
        caption = f'Accuracy is the mean of {averaged}.'
    else:
        started = [row for row in measured if row.done(suite)]
        common = [task for task in suite.tasks if all(row.score(task) for row in started)]
        if not started or not common:
            return None
        scores = {row: row.mean(common) for row in started}
        axis = f'mean accuracy of {len(common)} of {len(suite.tasks)} tasks (%)'
        caption = (
            f'No method has all {len(suite.tasks)} tasks yet. Accuracy is the mean of the '
            f'{len(common)} that all methods drawn have: '
            f'{", ".join(suite.tasks[task] for task in common)}. This is not the '
            "suite's average."
        )
        places = [list(suite.tasks).index(task) for task in common]
        quoted = {
            method: sum(row.tasks[i] for i in places) / len(places)
            for method, row in published.items()
            if row.tasks
        }
    left_out = [row for row in rows if row not in scores]
    if left_out:
        listed = ', '.join(f'{r.name} ({r.done(suite)}/{len(suite.tasks)})' for r in left_out)
        caption += f' Not drawn, for tasks are missing: {listed}.'
    quoted = {method: value for method, value in quoted.items() if value is not None}
    if quoted:
        caption += f" Hollow: the paper's numbers. Filled: measured. {paper.NOTE}"
    if any(score.deviation is not None for score in scores.values()):
        caption += ' Whiskers: standard deviation over seeds.'

    marks = [
        _Mark(
            row.name,
            paper.method_name(row.method),
            row.parameters,
            score.mean,
            score.deviation,
            measured=True,
        )
        for row, score in scores.items()
    ]
    marks += [
        _Mark(
            paper.method_name(method),
            paper.method_name(method),
            float(published[method].parameters) * 1e6,
            value,
        )
        for method, value in quoted.items()
    ]
    return _scatter(marks, axis, palette), caption


def _scatter(marks: Sequence[_Mark], axis: str, palette: Palette) -> Figure:
    figure = new(960, 540, layout='constrained')
    ax = figure.subplots()
    bare(ax, size=12)
    ax.set_ylabel(axis)
    place = parameters_axis(ax, [mark.parameters for mark in marks])
    points = [(place(mark.parameters), mark.accuracy) for mark in marks]
    measured = {
        mark.method: (point, palette.colour(mark.name))
        for mark, point in zip(marks, points, strict=True)
        if mark.measured
    }
    for (x, y), mark in zip(points, marks, strict=True):
        other, colour = measured.get(mark.method, ((x, y), '#8b939e'))
        if mark.measured:
            colour = palette.colour(mark.name)
            _whisker(ax, x, y, mark.deviation, colour)
        else:  # a method that was measured has a line to the paper's point
            ax.plot(*zip((x, y), other, strict=True), ':', color=colour, linewidth=1.2, zorder=2)
        (drawn,) = ax.plot(
            x,
            y,
            marker='o',
            markersize=11 if mark.measured else 8,
            markerfacecolor=colour if mark.measured else 'white',
            markeredgecolor='white' if mark.measured else colour,
            markeredgewidth=1.2 if mark.measured else 1.6,
            zorder=4 if mark.measured else 3,
        )
        source = 'measured' if mark.measured else 'paper'
        tip(
            drawn,
            f'{mark.name}, {source}: {mark.accuracy:.1f} %, {mark.parameters:,.0f} parameters',
        )
    ax.margins(y=0.08)
    write_names(
        ax,
        points,
        [
            escape.figure(mark.name) if mark.measured or mark.method not in measured else ''
            for mark in marks
        ],
        radius=6,
        fontsize=[12] * len(marks),
        fontweight=['bold' if mark.measured else 'normal' for mark in marks],
        color=[INK if mark.measured else SOFT for mark in marks],
    )
    return figure


def _whisker(ax: Axes, x: float, y: float, deviation: float | None, colour: str) -> None:
    if deviation:
        ends = [y - deviation, y + deviation]
        ax.plot([x, x], ends, color=colour, linewidth=1.6, zorder=3)


def bars(suite: Suite, rows: Sequence[Row], palette: Palette) -> dict[str, dict[str, Figure]]:
    """A small chart for each task that was tested: a bar for each method, a tick for the paper's.

    Returns:
        Name of the group -> head of the task -> figure.
    """
    charts: dict[str, dict[str, Figure]] = {}
    for group in suite.groups:
        for dataset, label in group.tasks.items():
            if any(row.score(dataset) for row in rows):
                charts.setdefault(group.name, {})[label] = _bar_chart(suite, dataset, rows, palette)
    return charts


def _bar_chart(suite: Suite, dataset: str, rows: Sequence[Row], palette: Palette) -> Figure:
    names = [escape.figure(_clip(row.name)) for row in rows]
    left = 12 + 6 * max(map(len, names))
    ax = panel(_PANEL, 26 + 20 * len(rows), left, right=70, bottom=20)
    for place, row in enumerate(rows):
        score = row.score(dataset)
        ax.text(
            1.02,
            place,
            _spread(score) if score else '—',
            transform=ax.get_yaxis_transform(),
            va='center',
            fontsize=10,
            color=INK,
        )
        if score is None:
            continue
        (bar,) = ax.barh(place, score.mean, 0.7, color=palette.colour(row.name), zorder=2)
        tip(bar, f'{row.name}: {_spread(score)} % over {score.seeds} seeds')
        if score.deviation:
            ends = [score.mean - score.deviation, score.mean + score.deviation]
            ax.plot(ends, [place, place], color=INK, linewidth=1.2, zorder=3)
        published = row.paper(suite)
        if published and published.tasks:
            quoted = published.tasks[list(suite.tasks).index(dataset)]
            ends = [place - 0.45, place + 0.45]
            style = dict(color=INK, linewidth=1.8, linestyle=(0, (1, 0.75)), zorder=4)
            (line,) = ax.plot([quoted, quoted], ends, **style)
            tip(line, f'{row.name}, paper: {quoted:.1f} %')
    ax.set_yticks(range(len(rows)), names, fontsize=10, color=INK)
    ax.set_xticks([0, 50, 100])
    ax.set_xlim(0, 100)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis='y')
    return ax.get_figure()


def _spread(score: Score) -> str:
    deviation = '' if score.deviation is None else f' ± {score.deviation:.1f}'
    return f'{score.mean:.1f}{deviation}'


def _clip(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…'


def curves(suite: Suite, rows: Sequence[Row], palette: Palette) -> dict[str, Figure]:
    """Training loss against epochs for each task, a line a seed.

    Returns:
        Head of the task -> figure.
    """
    charts = {}
    for dataset, label in suite.tasks.items():
        lines = [
            (row, final.seed, losses)
            for row in rows
            for final in row.complete
            if final.dataset == dataset and (losses := _losses(final.curve))
        ]
        if lines:
            charts[label] = _curve_chart(lines, palette)
    return charts


def _losses(curve: Sequence[Mapping]) -> list[tuple[float, float]]:
    """Epoch and loss; NaN, which interrupts a line, where the loss is not finite."""
    points = [
        (float(point['epoch']), float('nan' if point.get('loss') is None else point['loss']))
        for point in curve
        if 'epoch' in point
    ]
    return points if any(loss == loss for _, loss in points) else []


def _curve_chart(
    lines: Iterable[tuple[Row, int, list[tuple[float, float]]]], palette: Palette
) -> Figure:
    ax = panel(_PANEL, 190, left=34, right=10, bottom=34)
    for row, seed, losses in lines:
        marker = 'o' if len(losses) == 1 else None
        (line,) = ax.plot(
            *zip(*losses, strict=True),
            **palette.line(row.name),
            marker=marker,
            markersize=4,
            linewidth=1.5,
            alpha=0.85,
        )
        tip(line, f'{row.name}, seed {seed}')
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel('epoch')
    return ax.get_figure()


def shots(suite: Suite, rows: Sequence[Row], palette: Palette) -> dict[str, Figure]:
    """Accuracy against images a class for each task, and for their average.

    Returns:
        Head of the task, or ``Average`` -> figure.
    """
    charts = {}
    for dataset, label in {None: 'Average', **suite.tasks}.items():
        lines: dict[str, list[tuple[int, Score]]] = {}
        for row in rows:
            if score := row.score(dataset) if dataset else row.average(suite):
                lines.setdefault(row.name, []).append((row.shots, score))
        if lines:
            charts[label] = _shot_chart(lines, palette)
    return charts


def _shot_chart(lines: Mapping[str, list[tuple[int, Score]]], palette: Palette) -> Figure:
    ax = panel(_PANEL, 220, left=34, right=10, bottom=34)
    ax.set_xscale('log', base=2)
    for name, points in lines.items():
        style = palette.line(name)
        ax.plot([n for n, _ in points], [score.mean for _, score in points], **style, zorder=2)
        for number, score in points:
            _whisker(ax, number, score.mean, score.deviation, style['color'])
            (mark,) = ax.plot(number, score.mean, 'o', color=style['color'], markersize=6, zorder=4)
            tip(mark, f'{name}, {number}-shot: {score.mean:.1f} %')
    steps = sorted({number for points in lines.values() for number, _ in points})
    ax.set_xticks(steps, list(map(str, steps)))
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel('images a class')
    return ax.get_figure()
