"""The figures of the report, as SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gleam_mm.report import paper
from gleam_mm.report.suites import Suite
from gleam_mm.report.svg import Box, Drawing, place_labels, text_width, ticks
from gleam_mm.report.trials import Row

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
_DASHES = (None, '5 3', '2 2')


class Palette:
    """A colour for each method, the same in all figures.

    Args:
        names: The methods, as tables call them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._styles = {name: (_GLEAM[name], None) for name in names if name in _GLEAM}
        rest = [name for name in names if name not in _GLEAM]
        for colours, kin in ((_WARM, True), (_COOL, False)):
            chosen = [name for name in rest if name.startswith('GLEAM') == kin]
            for place, name in enumerate(chosen):
                turn, colour = divmod(place, len(colours))
                self._styles[name] = colours[colour], _DASHES[turn % len(_DASHES)]

    def colour(self, name: str) -> str:
        """The colour of a method."""
        return self._styles[name][0]

    def dash(self, name: str) -> str | None:
        """The dashes of a method's lines; None for solid ones."""
        return self._styles[name][1]


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
) -> tuple[str, str] | None:
    """Accuracy against parameters, the paper's Figure 1.

    Methods with all tasks are drawn by their average. Where no method has all, but all methods have
    some tasks in common, the mean over these is drawn instead, and called that.

    Args:
        suite: The suite.
        backbone: The backbone of the rows.
        rows: What was measured.
        palette: The colours.

    Returns:
        The drawing and its caption; None where there is nothing measured to draw.
    """
    measured = {row: row.average(suite) for row in rows if row.parameters is not None}
    published = paper.rows(suite.key, backbone)
    quoted = {method: row.average for method, row in published.items()}
    complete = {row: score for row, score in measured.items() if score}
    if complete:
        scores = complete
        what, axis = 'the mean of the group means', 'Average accuracy (%)'
        if len(suite.groups) == 1:
            what = 'the mean of all tasks'
        caption = f'Accuracy is {what}.'
    else:
        started = [row for row in measured if row.done(suite)]
        common = [task for task in suite.tasks if all(row.score(task) for row in started)]
        if not started or not common:
            return None
        scores = {row: row.mean(common) for row in started}
        axis = f'Mean accuracy of {len(common)} of {len(suite.tasks)} tasks (%)'
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
        caption += " Hollow: the paper's numbers. Filled: measured."
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
    title = f'Accuracy against trained parameters, {suite.name} on {backbone}'
    return _scatter(marks, title, axis, palette), caption


def _scatter(marks: Sequence[_Mark], title: str, axis: str, palette: Palette) -> str:
    drawing = Drawing(960, 560, title, 'trade-off')
    left, right, top, bottom = 64, 940, 16, 504
    levels = ticks(
        min(mark.accuracy - (mark.deviation or 0) for mark in marks) - 1,
        max(mark.accuracy + (mark.deviation or 0) for mark in marks) + 1,
    )
    sizes = [mark.parameters for mark in marks if mark.parameters > 0] or [1e6]
    low, high = math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(sizes)))
    high += high == low
    zero = any(mark.parameters == 0 for mark in marks)
    start = left + (70 if zero else 24)

    def x_of(size: float) -> float:
        if size == 0:
            return left + 30
        return start + (math.log10(size) - low) / (high - low) * (right - 24 - start)

    def y_of(value: float) -> float:
        return bottom - (value - levels[0]) / (levels[-1] - levels[0]) * (bottom - top)

    for level in levels:
        drawing.line(left, y_of(level), right, y_of(level), 'grid')
        drawing.text(left - 8, y_of(level) + 4, f'{level:g}', 'tick', text_anchor='end')
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        drawing.line(x, top, x, bottom, 'grid')
        label = f'{10.0 ** (power - 6):g}'
        drawing.text(x, bottom + 18, label, 'tick', text_anchor='middle')
    if zero:
        drawing.text(x_of(0), bottom + 18, '0', 'tick', text_anchor='middle')
        cut = (x_of(0) + start) / 2
        for shift in (-3, 3):
            drawing.line(cut + shift - 3, bottom + 5, cut + shift + 3, bottom - 5, 'axis')
    drawing.line(left, bottom, right, bottom, 'axis')
    middle = (left + right) / 2
    label = 'Trained parameters, head excluded (M)'
    drawing.text(middle, bottom + 42, label, 'label', text_anchor='middle')
    turn = f'translate(18 {(top + bottom) / 2}) rotate(-90)'
    drawing.text(0, 0, axis, 'label', text_anchor='middle', transform=turn)

    points = [(x_of(mark.parameters), y_of(mark.accuracy)) for mark in marks]
    measured = {
        mark.method: (point, mark.name)
        for mark, point in zip(marks, points, strict=True)
        if mark.measured
    }
    # A method that was measured has one label, and a line to the paper's point.
    alone = [mark.measured or mark.method not in measured for mark in marks]
    labels = [mark.name if labelled else '' for mark, labelled in zip(marks, alone, strict=True)]
    places = place_labels(points, labels, 12.5, Box(left + 2, top, right, bottom - 2))
    for (x, y), (text_x, text_y, far), mark, label in zip(
        points, places, marks, labels, strict=True
    ):
        if label and far:
            drawing.line(
                x, y, min(max(x, text_x), text_x + text_width(label, 12.5)), text_y - 4, 'leader'
            )
        if not label:
            (other_x, other_y), name = measured[mark.method]
            drawing.line(x, y, other_x, other_y, 'link', stroke=palette.colour(name))
        if mark.deviation:
            ends = y_of(mark.accuracy - mark.deviation), y_of(mark.accuracy + mark.deviation)
            drawing.line(x, ends[0], x, ends[1], 'whisker', stroke=palette.colour(mark.name))
    for (x, y), mark, label in zip(points, marks, labels, strict=True):
        source = 'measured' if mark.measured else 'paper'
        tip = f'{mark.name}, {source}: {mark.accuracy:.1f} %, {mark.parameters:,.0f} parameters'
        colour = palette.colour(mark.name) if mark.measured else None
        drawing.add(
            'circle',
            tip,
            cx=x,
            cy=y,
            r=6 if mark.measured else 4.5,
            class_=f'mark {source}',
            fill=colour,
            stroke=None if label else palette.colour(measured[mark.method][1]),
            data_name=mark.name,
            data_value=f'{mark.accuracy:.1f}',
        )
    for (text_x, text_y, _), mark, label in zip(places, marks, labels, strict=True):
        if label:
            drawing.text(text_x, text_y, label, f'name {"measured" if mark.measured else "paper"}')
    return str(drawing)


def bars(suite: Suite, rows: Sequence[Row], palette: Palette) -> dict[str, dict[str, str]]:
    """A small chart for each task that was tested: a bar for each method, a tick for the paper's.

    Returns:
        Name of the group -> head of the task -> drawing.
    """
    charts: dict[str, dict[str, str]] = {}
    for group in suite.groups:
        for dataset, label in group.tasks.items():
            if any(row.score(dataset) for row in rows):
                chart = _bar_chart(suite, dataset, label, rows, palette)
                charts.setdefault(group.name, {})[label] = chart
    return charts


def _bar_chart(
    suite: Suite, dataset: str, label: str, rows: Sequence[Row], palette: Palette
) -> str:
    name_width = min(max(text_width(_clip(row.name), 11) for row in rows) + 8, 140)
    width, pitch, top = 300, 20, 6
    height = top + pitch * len(rows) + 20
    left, right = name_width, width - 66
    bottom = top + pitch * len(rows)
    drawing = Drawing(width, height, f'Accuracy on {label}', 'bars')

    def x_of(value: float) -> float:
        return left + min(max(value, 0), 100) / 100 * (right - left)

    for level in (0, 50, 100):
        drawing.line(x_of(level), top, x_of(level), bottom, 'grid')
        drawing.text(x_of(level), bottom + 14, f'{level}', 'tick', text_anchor='middle')
    place = list(suite.tasks).index(dataset)
    for number, row in enumerate(rows):
        y = top + pitch * number
        drawing.text(left - 6, y + 14, _clip(row.name), 'bar-name', text_anchor='end')
        score = row.score(dataset)
        if score is None:
            drawing.text(left + 4, y + 14, '—', 'bar-value')
            continue
        text = f'{score.mean:.1f}'
        deviation = '' if score.deviation is None else f' ± {score.deviation:.1f}'
        drawing.add(
            'rect',
            f'{row.name}: {text}{deviation} % over {score.seeds} seeds',
            x=left,
            y=y + 3,
            width=max(x_of(score.mean) - left, 0.5),
            height=pitch - 6,
            class_='mark measured',
            fill=palette.colour(row.name),
            data_name=row.name,
            data_task=dataset,
            data_value=text,
        )
        if score.deviation:
            middle = y + pitch / 2
            drawing.line(
                x_of(score.mean - score.deviation),
                middle,
                x_of(score.mean + score.deviation),
                middle,
                'whisker dark',
            )
        drawing.text(right + 6, y + 14, f'{text}{deviation}', 'bar-value')
        published = row.paper(suite)
        if published and published.tasks:
            quoted = published.tasks[place]
            drawing.add(
                'line',
                f'{row.name}, paper: {quoted:.1f} %',
                x1=x_of(quoted),
                x2=x_of(quoted),
                y1=y + 1,
                y2=y + pitch - 1,
                class_='mark paper',
                data_name=row.name,
                data_task=dataset,
                data_value=f'{quoted:.1f}',
            )
    return str(drawing)


def _clip(name: str, longest: int = 19) -> str:
    return name if len(name) <= longest else f'{name[: longest - 1]}…'


def curves(suite: Suite, rows: Sequence[Row], palette: Palette) -> dict[str, str]:
    """Training loss against epochs for each task, a line a seed.

    Returns:
        Head of the task -> drawing.
    """
    charts = {}
    for dataset, label in suite.tasks.items():
        lines = [
            (row, final)
            for row in rows
            for final in row.complete
            if final.dataset == dataset and _losses(final.curve)
        ]
        if lines:
            charts[label] = _curve_chart(label, lines, palette)
    return charts


def _losses(curve: Sequence[Mapping]) -> list[tuple[float, float] | None]:
    """Epoch and loss; None where the loss is not finite."""
    points = [
        (float(point['epoch']), float(point['loss'])) if point.get('loss') is not None else None
        for point in curve
        if 'epoch' in point
    ]
    return points if any(points) else []


def _curve_chart(label: str, lines: Sequence[tuple], palette: Palette) -> str:
    width, height = 300, 190
    left, right, top, bottom = 40, width - 10, 8, height - 34
    drawing = Drawing(width, height, f'Training loss on {label}', 'curves')
    points = [point for _, final in lines for point in _losses(final.curve) if point]
    levels = ticks(0.0, max(loss for _, loss in points) or 1.0, 5)
    last = max(epoch for epoch, _ in points)
    steps = [step for step in ticks(0.0, last, 5) if step == int(step)]

    def xy(point: tuple[float, float] | None) -> tuple[float, float] | None:
        if point is None:
            return None
        epoch, loss = point
        return (
            left + epoch / max(last, steps[-1]) * (right - left),
            bottom - (loss - levels[0]) / (levels[-1] - levels[0]) * (bottom - top),
        )

    for level in levels:
        y = xy((0, level))[1]
        drawing.line(left, y, right, y, 'grid')
        drawing.text(left - 6, y + 4, f'{level:g}', 'tick', text_anchor='end')
    for step in steps:
        drawing.text(xy((step, 0))[0], bottom + 15, f'{step:g}', 'tick', text_anchor='middle')
    drawing.line(left, bottom, right, bottom, 'axis')
    drawing.text((left + right) / 2, height - 4, 'epoch', 'label', text_anchor='middle')
    for row, final in lines:
        losses = [xy(point) for point in _losses(final.curve)]
        style = dict(
            tip=f'{row.name}, seed {final.seed}',
            stroke=palette.colour(row.name),
            data_name=row.name,
            data_seed=final.seed,
        )
        if len(losses) == 1:
            x, y = losses[0]
            drawing.add('circle', cx=x, cy=y, r=2.5, class_='mark curve dot', **style)
        else:
            drawing.path(losses, 'mark curve', stroke_dasharray=palette.dash(row.name), **style)
    return str(drawing)


def shots(suite: Suite, rows: Sequence[Row], palette: Palette) -> dict[str, str]:
    """Accuracy against images a class for each task, and for their average.

    Returns:
        Head of the task, or ``Average`` -> drawing.
    """
    charts = {}
    heads: list[tuple[str, str | None]] = [('Average', None)]
    heads += [(label, dataset) for dataset, label in suite.tasks.items()]
    for label, dataset in heads:
        lines: dict[str, list[tuple[int, float, float | None]]] = {}
        for row in rows:
            score = row.score(dataset) if dataset else row.average(suite)
            if score:
                line = lines.setdefault(row.name, [])
                line.append((row.shots, score.mean, score.deviation))
        if lines:
            charts[label] = _shot_chart(label, dataset or 'average', lines, palette)
    return charts


def _shot_chart(
    label: str,
    task: str,
    lines: Mapping[str, Sequence[tuple[int, float, float | None]]],
    palette: Palette,
) -> str:
    width, height = 300, 220
    left, right, top, bottom = 40, width - 14, 8, height - 38
    drawing = Drawing(width, height, f'Accuracy against shots, {label}', 'shots')
    marks = [mark for line in lines.values() for mark in line]
    steps = sorted({count for count, _, _ in marks})
    levels = ticks(
        min(mean - (deviation or 0) for _, mean, deviation in marks),
        max(mean + (deviation or 0) for _, mean, deviation in marks),
        5,
    )

    def x_of(count: int) -> float:
        if len(steps) == 1:
            return (left + right) / 2
        place = math.log2(count / steps[0]) / math.log2(steps[-1] / steps[0])
        return left + 12 + place * (right - left - 24)

    def y_of(value: float) -> float:
        return bottom - (value - levels[0]) / (levels[-1] - levels[0]) * (bottom - top)

    for level in levels:
        drawing.line(left, y_of(level), right, y_of(level), 'grid')
        drawing.text(left - 6, y_of(level) + 4, f'{level:g}', 'tick', text_anchor='end')
    for count in steps:
        drawing.text(x_of(count), bottom + 16, str(count), 'tick', text_anchor='middle')
    drawing.line(left, bottom, right, bottom, 'axis')
    drawing.text((left + right) / 2, height - 5, 'images a class', 'label', text_anchor='middle')
    for name, line in lines.items():
        colour = palette.colour(name)
        drawing.path(
            [(x_of(count), y_of(mean)) for count, mean, _ in sorted(line)],
            'curve',
            stroke=colour,
            stroke_dasharray=palette.dash(name),
        )
        for count, mean, deviation in line:
            if deviation:
                drawing.line(
                    x_of(count),
                    y_of(mean - deviation),
                    x_of(count),
                    y_of(mean + deviation),
                    'whisker',
                    stroke=colour,
                )
            drawing.add(
                'circle',
                f'{name}, {count}-shot: {mean:.1f} %',
                cx=x_of(count),
                cy=y_of(mean),
                r=3.5,
                class_='mark measured',
                fill=colour,
                data_name=name,
                data_task=task,
                data_value=f'{mean:.1f}',
            )
    return str(drawing)
