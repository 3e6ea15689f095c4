"""What GLEAM adds to a training step as it grows: arithmetic, kept memory, number of operations.

Nothing is computed but shapes, so that a ViT-g of forty blocks takes seconds on any machine. The
limit is counted (a frozen backbone with the gradient flowing through all of its activations), and
what GLEAM has beyond it, along its rank, its experts, the size of images and the depth:

    python benchmarks/scaling.py

- arithmetic: multiplications and additions of matrix products, attention and convolutions;
- memory: bytes of the tensors that the forward pass keeps for the backward pass, with
  `recompute=False`, for tensors without memory are not made again;
- operations: calls of PyTorch's kernels, which is what many small ones cost on a card.

scaling.csv, scaling.md and scaling.svg go to --out.
"""

import argparse
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tabular
import torch
from contenders import CONTENDERS, Backbone, adapted, vit
from counting import Arithmetic, Calls
from mmengine.logging import MMLogger
from step import FOLDER, note
from torch import nn

from gleam_mm.config import recipes
from gleam_mm.fileio import write_bytes
from gleam_mm.output import figures, tables

BATCH = 2
ARITHMETIC, MEMORY, OPERATIONS = 'arithmetic', 'memory', 'operations'


@dataclass(frozen=True)
class Axis:
    """Something that grows.

    Attributes:
        name: What it is.
        values: Its values.
        size: The backbone and its image size at a value.
        options: Options of GLEAM at a value.
        extent: What a value counts for, where that is not itself: pixels are of two dimensions.
        most: The power of that by which what is added has to grow at most, of each count.
        why: Where that comes from.
    """

    name: str
    values: Sequence[int]
    size: Callable[[int], tuple[Backbone, int]]
    options: Callable[[int], dict]
    most: dict[str, float]
    why: str
    extent: Callable[[int], float] = float


def _small(pixels: int) -> tuple[Backbone, int]:
    return Backbone('ViT-S/16', vit(384, 12, 6, 1536), 384), pixels


def _giant(depth: int) -> tuple[Backbone, int]:
    return Backbone(f'ViT-g/14 of {depth}', vit(1408, depth, 16, 6144, patch=14), 1408), 224


AXES = (
    Axis(
        'rank',
        (4, 8, 16, 32, 64),
        lambda _: _small(224),
        lambda rank: dict(rank=rank),
        {ARITHMETIC: 2, MEMORY: 1, OPERATIONS: 0},
        'A and B grow with the rank, local transforms and experts with its square',
    ),
    Axis(
        'experts',
        (1, 2, 4, 8, 16),
        lambda _: _small(224),
        lambda number: dict(num_experts=number, top_k=number),
        {ARITHMETIC: 1, MEMORY: 1, OPERATIONS: 0},
        'experts are summed before they convolve: only their kernels are more',
    ),
    Axis(
        'pixels',
        (32, 64, 96, 128, 224, 384),
        _small,
        lambda _: {},
        {ARITHMETIC: 1, MEMORY: 1, OPERATIONS: 0},
        'what a token costs does not depend on how many there are',
        extent=lambda pixels: (pixels / 16) ** 2 + 1,
    ),
    Axis(
        'depth',
        (12, 24, 32, 40),
        _giant,
        lambda _: {},
        {ARITHMETIC: 1, MEMORY: 1, OPERATIONS: 1},
        'every block has the same sites',
    ),
)
SLACK = 0.05
"""By how much a measured power may exceed what it has to be: whole numbers are not exact powers."""


@dataclass(frozen=True)
class Point:
    """What is counted at a value of an axis, of one training step."""

    axis: str
    value: int
    limit_arithmetic: int
    added_arithmetic: int
    limit_memory: int
    added_memory: int
    limit_operations: int
    added_operations: int


def count(model: nn.Module, image_size: int) -> dict[str, int]:
    """Counts a training step of a model without weights."""
    images = torch.empty(BATCH, 3, image_size, image_size, device='meta')
    with Arithmetic() as arithmetic, Calls() as calls:
        outputs = model(images)
        kept = calls.kept(model)  # by the graph, for the backward pass
        outputs.sum().backward()
    return {ARITHMETIC: arithmetic.total, MEMORY: kept, OPERATIONS: calls.number}


def points(axis: Axis) -> list[Point]:
    """Counts along an axis."""
    found = []
    for value in axis.values:
        backbone, image_size = axis.size(value)
        with torch.device('meta'):
            limit = CONTENDERS['limit'].build(backbone, image_size).train()
            petl = {**recipes.method_preset('gleam-l'), **axis.options(value)}
            model = adapted(backbone, image_size, petl, probe=False, recompute=False).train()
        # The gradient goes as far as the limit's, so that what is added is GLEAM's alone.
        model.backbone.patch_embed.projection.bias.requires_grad_(True)
        base, total = count(limit, image_size), count(model, image_size)
        counts = {}
        for what in (ARITHMETIC, MEMORY, OPERATIONS):
            counts |= {f'limit_{what}': base[what], f'added_{what}': total[what] - base[what]}
        found.append(Point(axis.name, value, **counts))
    return found


def power(axis: Axis, found: Sequence[Point], what: str) -> float:
    """The highest power by which what is added grows between neighbouring values."""
    highest = -math.inf
    for before, after in itertools.pairwise(found):
        grown = getattr(after, f'added_{what}') / getattr(before, f'added_{what}')
        extent = axis.extent(after.value) / axis.extent(before.value)
        highest = max(highest, math.log(grown) / math.log(extent))
    return highest


def read(path: Path) -> list[tuple[Axis, list[Point]]]:
    """The points of a CSV file, by their axes."""
    found = [point for (point,) in tabular.read(path, Point)]
    by_axis = [(axis, [point for point in found if point.axis == axis.name]) for axis in AXES]
    return [(axis, there) for axis, there in by_axis if there]


def markdown(results: Sequence[tuple[Axis, list[Point]]]) -> str:
    """A table of what GLEAM adds, and one of how that grows, with the verdict."""
    head = ('', 'value', ARITHMETIC, MEMORY, OPERATIONS)
    body = []
    for axis, found in results:
        for point in found:
            cells = [
                f'{getattr(point, f"added_{what}") / getattr(point, f"limit_{what}"):+.1%}'
                for what in (ARITHMETIC, MEMORY, OPERATIONS)
            ]
            body.append((axis.name, f'{point.value:,}', *cells))
    parts = [
        'What GLEAM adds to the limit:\n',
        tables.pipes(head, body, left=head[:1]),
        '\nThe highest power by which what it adds grows from one value to the next, and what it '
        'has to be at most:\n',
    ]
    body, faster = [], []
    for axis, found in results:
        cells = []
        for what in (ARITHMETIC, MEMORY, OPERATIONS):
            measured, most = power(axis, found, what), axis.most[what]
            cells.append(f'{measured:.2f} of {most:g}')
            if measured > most + SLACK:
                faster.append(f'{what} with {axis.name}')
        growing = 'tokens' if axis.name == 'pixels' else axis.name
        body.append((growing, *cells, axis.why))
    head = ('', ARITHMETIC, MEMORY, OPERATIONS, 'why')
    parts.append(tables.pipes(head, body, left=(head[0], head[-1])))
    told = ', '.join(faster)
    parts.append(
        f'\nFaster than it must grows: {told}.\n' if faster else '\nNothing grows faster.\n'
    )
    return '\n'.join(parts)


def draw(results: Sequence[tuple[Axis, list[Point]]], path: Path) -> list[Path]:
    """Draws the three counts along each axis, by the limit's."""
    figure = figures.new(720, 210, layout='constrained')
    for (axis, found), ax in zip(
        results, figure.subplots(1, len(results), sharey=True), strict=True
    ):
        figures.bare(ax)
        for what, colour, mark in (
            (ARITHMETIC, figures.ACCENT, 'o'),
            (MEMORY, figures.INK, 's'),
            (OPERATIONS, figures.SOFT, '^'),
        ):
            shares = [1 + getattr(p, f'added_{what}') / getattr(p, f'limit_{what}') for p in found]
            ax.plot(axis.values, shares, color=colour, marker=mark, markersize=4, label=what)
        ax.set_xscale('log', base=2)
        ax.set_xticks(axis.values, [str(value) for value in axis.values])
        ax.minorticks_off()
        ax.set_xlabel(axis.name)
    figure.axes[0].set_ylabel('GLEAM by the limit')
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figures.save(figure, path, 'svg')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=FOLDER, help='folder of the tables')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Counts and writes."""
    args = parse_args(argv)
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    results = [(axis, points(axis)) for axis in AXES]
    counted = ((point,) for _, found in results for point in found)
    tabular.write(args.out / 'scaling.csv', counted, Point)
    write_bytes(args.out / 'scaling.md', markdown(results).encode())
    for path in draw(results, args.out / 'scaling'):
        print(f'wrote {path}')
    note(args.out, 'scaling')
    print(markdown(results))


if __name__ == '__main__':
    main()
