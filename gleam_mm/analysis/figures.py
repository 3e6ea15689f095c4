"""Figures of analyses, and their JSON: readable on a screen, in print and in greyscale."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gleam_mm.analysis.homogeneity import MEASURES, PATHS
from gleam_mm.fileio import write_bytes
from gleam_mm.output import escape

_MOST_ANNOTATED = 150  # cells; numbers in more of them could not be read
_MOST_TICKS = 24
_MOST_LAYERS = 12  # pictures in a row
_MEASURE_NAMES = {'cosine': 'cosine similarity', 'l2': 'L2 distance', 'cka': 'linear CKA'}
_PATH_NAMES = {'frozen': 'frozen path', 'update': 'update'}
# Two colours that differ in brightness as well, from cividis.
_DARK, _LIGHT = '#00306f', '#d1b947'
# Of roles; from the fifth on with other markers.
_LINES = ('-', '--', '-.', ':') * 2
_MARKERS = 'osD^vP*X'
_COLOURS = ('#00306f', '#575d6d', '#8a8779', '#b39b1d') * 2


def write_json(path: Path, content: Any) -> None:
    """Writes numbers as JSON, with null for those that are not defined."""
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    write_bytes(path, f'{text}\n'.encode())


def similarity_maps(subject: Mapping[str, Any], role: str) -> Figure:
    """Heat maps between layers (the paper's figure 2): the frozen path above, the update below.

    As in the paper, both rows of a column have one scale, that of the pairs of different layers.

    Args:
        subject: A result of :func:`gleam_mm.analysis.homogeneity.measure`.
        role: The role to draw.
    """
    measured = subject['roles'][role]
    labels = _layer_labels(measured)
    axis = 'layer' if labels[0] == '0' else 'stage.layer'
    size = 2.1 + 0.17 * min(len(labels), 14)
    figure = Figure(figsize=(3 * size + 0.9, 2 * size + 0.8), layout='constrained')
    axes = figure.subplots(len(PATHS), len(MEASURES), squeeze=False)
    for column, name in enumerate(MEASURES):
        matrices = [np.array(measured[path][name], dtype=float) for path in PATHS]
        others = np.concatenate([m[~np.eye(len(m), dtype=bool)] for m in matrices])
        low, high = _range(others)
        for row, path in enumerate(PATHS):
            ax = axes[row, column]
            image = heat_map(ax, matrices[row], labels, labels, low, high)
            # A distance says little without the lengths of what it is between.
            norm = f' (norm {_short(np.mean(measured[path]["norm"]))})' if name == 'l2' else ''
            ax.set_title(f'{_PATH_NAMES[path]}: {_MEASURE_NAMES[name]}{norm}', fontsize=9)
            ax.set_xlabel(axis if row else '', fontsize=8)
            ax.set_ylabel('' if column else axis, fontsize=8)
        figure.colorbar(image, ax=axes[:, column], shrink=0.7, aspect=30).ax.tick_params(
            labelsize=7
        )
    figure.suptitle(
        f'{escape.figure(subject["name"])} ({subject["method"]["class"]}), {role}: how alike the '
        f'layers are, {_seen(subject)}.  The colours span pairs of different layers.',
        fontsize=9,
    )
    return figure


def adjacent_bars(subjects: Sequence[Mapping[str, Any]], role: str) -> Figure:
    """Mean similarity of adjacent layers beside accuracy (the paper's figure 3).

    Args:
        subjects: Results of :func:`gleam_mm.analysis.homogeneity.measure` that have the role.
        role: The role to draw.
    """
    names = [escape.figure(subject['name']) for subject in subjects]
    wide = 1.2 + 0.8 * max(len(names), 3)
    figure = Figure(figsize=(2 * wide, 5.6), layout='constrained')
    axes = figure.subplots(2, 2).flat
    places = np.arange(len(names))
    for ax, name in zip(axes[:-1], MEASURES, strict=True):
        for offset, path, colour in ((-0.2, 'frozen', _LIGHT), (0.2, 'update', _DARK)):
            heights = [_number(s['roles'][role][path]['adjacent'][name]) for s in subjects]
            bars = ax.bar(places + offset, heights, 0.38, color=colour, label=_PATH_NAMES[path])
            ax.bar_label(bars, list(map(_short, heights)), fontsize=7, padding=1)
            for place in places[np.isnan(heights)]:
                ax.text(place + offset, 0, 'none', fontsize=7, ha='center', va='bottom')
        ax.set_title(f'{_MEASURE_NAMES[name]} of adjacent layers', fontsize=9)
    accuracies = [_number((subject['accuracy'] or {}).get('value')) for subject in subjects]
    bars = axes[-1].bar(places, accuracies, 0.5, color='#7f7c75')
    labels = ['' if math.isnan(value) else f'{value:.1f}' for value in accuracies]
    axes[-1].bar_label(bars, labels, fontsize=7, padding=1)
    for place in places[np.isnan(accuracies)]:
        axes[-1].text(place, 0, 'other classes', fontsize=7, ha='center', va='bottom')
    axes[-1].set_title('top-1 accuracy (%)', fontsize=9)
    axes[-1].set_xlabel(_sources(subjects), fontsize=7)
    for ax in axes:
        ax.set_xticks(places, names, fontsize=8, rotation=20 if max(map(len, names)) > 9 else 0)
        ax.tick_params(axis='y', labelsize=7)
        ax.spines[['top', 'right']].set_visible(False)
        ax.margins(y=0.14)
        ax.axhline(0, color='black', linewidth=0.6)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc='outside lower center', ncols=2, fontsize=8, frameon=False)
    seen = ', '.join(dict.fromkeys(map(_seen, subjects)))
    title = f'{role}: how alike adjacent layers are, beside accuracy'
    figure.suptitle(f'{title}\n{seen}', fontsize=9)
    return figure


def routing_layers(subject: Mapping[str, Any]) -> Figure:
    """How often each layer chooses each expert, a panel a role.

    Args:
        subject: A result of :func:`gleam_mm.analysis.routing.measure`.
    """
    roles = _by_role(subject)
    experts = _expert_labels(subject)
    tallest = max(map(len, roles.values()))
    figure = Figure(
        figsize=(1.3 + len(roles) * (0.9 + 0.42 * len(experts)), 1.7 + 0.24 * tallest),
        layout='constrained',
    )
    axes = figure.subplots(1, len(roles), squeeze=False)[0]
    for ax, (role, sites) in zip(axes, roles.items(), strict=True):
        shares = np.array([site['share'] for site in sites])
        layers = [str(site['block']) for site in sites]
        image = heat_map(ax, shares, layers, experts, 0, 1)
        ax.set_title(role, fontsize=9)
        ax.set_xlabel('expert (scale)', fontsize=8)
    axes[0].set_ylabel('layer', fontsize=8)
    figure.colorbar(image, ax=axes, aspect=30).ax.tick_params(labelsize=7)
    figure.suptitle(f'{_routing_title(subject)}\nshare of decisions that choose it', fontsize=9)
    return figure


def routing_classes(subject: Mapping[str, Any]) -> Figure:
    """How often each class meets each expert, averaged over the layers of a role.

    Args:
        subject: A result of :func:`gleam_mm.analysis.routing.measure`.
    """
    roles = _by_role(subject)
    experts, classes = _expert_labels(subject), list(map(escape.figure, subject['classes']))
    figure = Figure(
        figsize=(
            2.4 + len(roles) * (0.9 + 0.42 * len(experts)),
            1.7 + 0.24 * min(len(classes), 36),
        ),
        layout='constrained',
    )
    axes = figure.subplots(1, len(roles), squeeze=False, sharey=True)[0]
    for ax, (role, sites) in zip(axes, roles.items(), strict=True):
        shares = np.mean([_matrix(site['share_by_class']) for site in sites], axis=0)
        image = heat_map(ax, shares, classes, experts, 0, 1)
        ax.set_title(role, fontsize=9)
        ax.set_xlabel('expert (scale)', fontsize=8)
    axes[0].set_ylabel('class', fontsize=8)
    figure.colorbar(image, ax=axes, aspect=30).ax.tick_params(labelsize=7)
    title = 'share of decisions that choose it, mean over layers'
    figure.suptitle(f'{_routing_title(subject)}\n{title}', fontsize=9)
    return figure


def routing_balance(subject: Mapping[str, Any]) -> Figure:
    """Load balance, entropy of the gate and how much the class decides, by layer.

    Args:
        subject: A result of :func:`gleam_mm.analysis.routing.measure`.
    """
    figure = Figure(figsize=(11, 3.3), layout='constrained')
    panels = {
        'load_cv': 'load: coefficient of variation (0 = even)',
        'gate_entropy': f'entropy of the gate (nats, at most ln {subject["top_k"]})',
        'class_information': 'choice and class: mutual information (nats)',
    }
    axes = figure.subplots(1, len(panels))
    roles = _by_role(subject).items()
    for ax, (key, title) in zip(axes, panels.items(), strict=True):
        styles = itertools.cycle(zip(_LINES, _MARKERS, _COLOURS, strict=True))
        for (role, sites), (line, marker, colour) in zip(roles, styles, strict=False):
            layers = [site['block'] for site in sites]
            values = [site[key] for site in sites]
            ax.plot(layers, values, line, marker=marker, markersize=4, color=colour, label=role)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel('layer', fontsize=8)
        ax.tick_params(labelsize=7)
        ax.spines[['top', 'right']].set_visible(False)
        ax.set_ylim(0, 1.08 * max(ax.get_ylim()[1], 1e-3))
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc='outside lower center', ncols=4, fontsize=8, frameon=False)
    figure.suptitle(_routing_title(subject), fontsize=9)
    return figure


def attention_maps(result: Mapping[str, Any], shown: np.ndarray) -> Figure:
    """Images, their rollout where there is one, and the map of each layer.

    Each map has its own colours, from its least to its largest value.

    Args:
        result: A result of :func:`gleam_mm.analysis.attention.measure`.
        shown: The images, of shape (B, H, W, 3).
    """
    layers = len(result['layers'])
    picked = np.unique(np.linspace(0, layers - 1, min(layers, _MOST_LAYERS)).round().astype(int))
    rolled = result['images'][0]['rollout'] is not None
    columns = 1 + rolled + len(picked)
    figure, axes = _picture_grid(len(shown), columns)
    for row, image in zip(axes, result['images'], strict=True):
        maps = ([image['rollout']] if rolled else []) + [image['maps'][layer] for layer in picked]
        for ax, values in zip(row[1:], maps, strict=True):
            ax.imshow(np.array(values), cmap='cividis')
    _draw_pictures(axes, result, shown)
    titles = (['rollout'] if rolled else []) + [f'layer {layer}' for layer in picked]
    for ax, title in zip(axes[0, 1:], titles, strict=True):
        ax.set_title(title, fontsize=8)
    title = f'{escape.figure(result["name"])}: {result["map"]}'
    figure.suptitle(f'{title}; each map from its least (dark) to its largest value', fontsize=9)
    return figure


def cam_maps(result: Mapping[str, Any], shown: np.ndarray) -> Figure:
    """Images, their class activation maps, and both on top of each other.

    Args:
        result: A result of :func:`gleam_mm.analysis.cam.measure`.
        shown: The images, of shape (B, H, W, 3).
    """
    figure, axes = _picture_grid(len(shown), 3, size=1.7)
    for row, image, pixels in zip(axes, result['images'], shown, strict=True):
        values = np.array(image['map'])
        row[1].imshow(values, cmap='cividis', vmin=0, vmax=1)
        row[2].imshow(pixels.mean(-1), cmap='gray', vmin=0, vmax=255)
        row[2].imshow(values, cmap='cividis', vmin=0, vmax=1, alpha=0.55)
    _draw_pictures(axes, result, shown)
    target = result['images'][0]['target']
    target = 'predicted class' if target is None else escape.figure(target)
    axes[0, 1].set_title(f'{result["cam"]}, {target}', fontsize=8)
    axes[0, 2].set_title('on the image', fontsize=8)
    title = f'{escape.figure(result["name"])}: {result["cam"]} at {result["site"]}'
    figure.suptitle(title, fontsize=9)
    return figure


def heat_map(
    ax: Axes,
    matrix: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    low: float,
    high: float,
) -> Any:
    """Draws a matrix; numbers stand in the cells where there are few, NaN is hatched.

    Args:
        ax: Where to draw.
        matrix: The values.
        rows: Labels of the rows.
        columns: Labels of the columns.
        low: The value at the dark end of the colours.
        high: The value at the light end.

    Returns:
        Matplotlib's image, for a colour bar.
    """
    ax.set_facecolor('white')
    ax.patch.set_hatch('////')
    ax.patch.set_edgecolor('#bbbbbb')
    image = ax.imshow(
        np.ma.masked_invalid(matrix), cmap='cividis', vmin=low, vmax=high, aspect='auto'
    )
    for set_ticks, labels in ((ax.set_yticks, rows), (ax.set_xticks, columns)):
        step = -(-len(labels) // _MOST_TICKS)
        set_ticks(range(0, len(labels), step), labels[::step], fontsize=7)
    if len(columns) > 12 and max(map(len, columns)) > 2:
        ax.tick_params(axis='x', rotation=90)
    if matrix.size <= _MOST_ANNOTATED:
        for (row, column), value in np.ndenumerate(matrix):
            if math.isfinite(value):
                light = high > low and (value - low) / (high - low) > 0.5
                ax.text(
                    column,
                    row,
                    _short(value),
                    ha='center',
                    va='center',
                    fontsize=6 if matrix.size > 70 else 7,
                    color='black' if light else 'white',
                )
    return image


def _picture_grid(rows: int, columns: int, size: float = 1.15) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(size * columns + 0.9, size * rows * 1.05 + 0.7), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure, axes


def _draw_pictures(axes: np.ndarray, result: Mapping[str, Any], shown: np.ndarray) -> None:
    for ax, image, pixels in zip(axes[:, 0], result['images'], shown, strict=True):
        ax.imshow(pixels)
        told = f'{escape.figure(image["predicted"])} {image["probability"]:.0%}'
        if image['label'] is not None:
            told = f'label {escape.figure(image["label"])}\n{told}'
        ax.set_ylabel(told, fontsize=7, rotation=0, ha='right', va='center')


def _by_role(subject: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    roles: dict[str, list] = {}
    for site in subject['sites']:
        roles.setdefault(site['role'], []).append(site)
    return roles


def _expert_labels(subject: Mapping[str, Any]) -> list[str]:
    return [f'{index}\n(x{scale})' for index, scale in enumerate(subject['scales'])]


def _routing_title(subject: Mapping[str, Any]) -> str:
    name, experts = escape.figure(subject['name']), len(subject['scales'])
    return f'{name}: {subject["top_k"]} of {experts} experts, {_seen(subject)}'


def _seen(subject: Mapping[str, Any]) -> str:
    data = subject['data']
    return f'{data["images"]:,} images of {escape.figure(data["dataset"])} {data["split"]}'


def _matrix(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([list(map(_number, row)) for row in rows])


def _layer_labels(measured: Mapping[str, Any]) -> list[str]:
    stages = measured['stages']
    if len(set(stages)) == 1:
        return [str(block) for block in measured['blocks']]
    return [f'{stage}.{block}' for stage, block in zip(stages, measured['blocks'], strict=True)]


def _range(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1e-6)


def _short(value: float) -> str:
    """Three digits or so; "none" for what is not defined."""
    if not math.isfinite(value):
        return 'none'
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f'{round(value, decimals) + 0.0:.{decimals}f}'  # + 0.0: no minus in front of zero


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _sources(subjects: Sequence[Mapping[str, Any]]) -> str:
    told = (subject['accuracy'] for subject in subjects)
    sources = dict.fromkeys(accuracy['source'] for accuracy in told if accuracy)
    return '\n'.join(sources)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
