"""What a step costs: time and peak memory of methods, in training and at evaluation, in one run.

Every contender takes its turns between those of all others, so that a change in the machine's speed
meets all of them alike. Ratios are against the limit of the contender's library: in training a
frozen backbone with the gradient flowing through all of its activations, at evaluation the backbone
alone. Methods that merge cost nothing at evaluation once they are merged; what is measured is not.

    python benchmarks/step.py                             # ViT-S and Swin-T, an hour on one core
    python benchmarks/step.py --minutes 10 --threads 1    # as many rounds as that allows
    python benchmarks/step.py --backbones vit-b --batches 4 --only gleam-l 'lora, every Linear'
    python benchmarks/step.py --device cuda               # ViT-B and Swin-B, float32, bf16, fp16
    python benchmarks/step.py --device cuda --backbones vit-b --only gleam-l --profile
    python benchmarks/step.py --device cuda --modes training --cuda-graph
    python benchmarks/step.py --device cuda --compile reduce-overhead

Tables go to --out: step.csv, of which what is there already is not measured again, step.md and
step.svg. A contender that a setting lacks takes turns with the limit anew, and its ratios are to
that one. With --profile, profile.md instead, which says where the time goes.
"""

import argparse
import functools
import itertools
import json
import logging
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tabular
import torch
from contenders import BACKBONES, CONTENDERS, MMPRETRAIN, share_frozen
from measuring import COMPILED, DTYPES, RECORDING, Turns, environment, in_turn, profiled
from mmengine.logging import MMLogger
from torch import nn

from gleam_mm.fileio import write_bytes
from gleam_mm.output import escape, figures, tables

FOLDER = Path(__file__).parent / 'speed'

ON_CPU = dict(backbones=['vit-s', 'swin-t'], batches=[4, 32], dtypes=['float32'])
ON_CARD = dict(backbones=['vit-b', 'swin-b'], batches=[32, 128], dtypes=['float32', 'bf16', 'fp16'])
"""What is measured where the flags do not say."""

MODES = TRAINING, EVALUATION = 'training', 'evaluation'


@dataclass(frozen=True)
class Setting:
    """What all contenders of a table have in common."""

    device: str
    backbone: str
    image_size: int
    mode: str
    batch: int
    dtype: str
    channels_last: bool = False
    cuda_graph: bool = False
    compiled: str = ''

    def __str__(self) -> str:
        return (
            f'{self.backbone} at {self.image_size}, {self.mode}, batch {self.batch}, {self.way}, '
            f'{self.device}{self.launched}'
        )

    @property
    def way(self) -> str:
        """In which precision and format it is computed."""
        return f'{self.dtype}{", channels last" if self.channels_last else ""}'

    @property
    def launched(self) -> str:
        """What asks for its operations, behind a comma where it is not Python."""
        graph = ', as CUDA graphs' if self.cuda_graph else ''
        mode = '' if self.compiled == 'default' else f', {self.compiled}'
        return graph + (f', compiled{mode}' if self.compiled else '')


@dataclass(frozen=True)
class Row:
    """What was measured of a contender in a setting.

    Attributes:
        contender: Its name.
        parameters: How many parameters it trains, the head's included.
        time: The median over rounds of its time by its limit's in the same round.
        low: The lower quartile of that.
        high: The upper quartile.
        memory: Its peak memory by its limit's; None where a compiler reserves it beforehand.
        rounds: How many rounds were counted.
        images_per_second: On a card alone: elsewhere other programs take part in it.
        gigabytes: Its peak memory, on a card, where it is known.
    """

    contender: str
    parameters: int
    time: float
    low: float
    high: float
    memory: float | None
    rounds: int
    images_per_second: float | None = None
    gigabytes: float | None = None


def measure(setting: Setting, names: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    """Measures contenders in turn.

    Args:
        setting: What they have in common.
        names: Their names; the limits of their libraries join them.
        rounds: How many rounds to count; two turns of each come before.
        seconds: When no further round begins; three are counted in any case.
    """
    chosen = {name: CONTENDERS[name] for name in names}
    limits = {
        c.origin: name
        for name, c in CONTENDERS.items()
        if c.limit and any(c.origin == other.origin for other in chosen.values())
    }
    names = [name for name in CONTENDERS if name in (*limits.values(), *chosen)]
    models = {
        name: built(name, setting.backbone, setting.image_size, setting.device) for name in names
    }
    for library in limits:
        share_frozen({n: m for n, m in models.items() if CONTENDERS[n].origin == library})
    images = torch.randn(setting.batch, 3, *[setting.image_size] * 2).to(setting.device)
    entries = {name: entry(model, images, setting) for name, model in models.items()}
    started, counted = time.monotonic(), []
    peaks: dict[str, int] = {}
    for taken in in_turn(entries):
        if peaks:
            counted.append(taken)
        else:  # the first round makes the optimizers' states
            peaks = {name: entry.peak() for name, entry in entries.items()}
        late = len(counted) >= 3 and time.monotonic() - started > seconds
        if len(counted) >= rounds or late:
            break
    rows = []
    for name in names:
        limit = limits[CONTENDERS[name].origin]
        ratios = [taken[name] / taken[limit] for taken in counted]
        low, middle, high = statistics.quantiles(ratios, n=4, method='inclusive')
        card = setting.device == 'cuda'
        known = setting.compiled != RECORDING
        median = statistics.median(taken[name] for taken in counted)
        rows.append(
            Row(
                name,
                sum(p.numel() for p in models[name].parameters() if p.requires_grad),
                middle,
                low,
                high,
                peaks[name] / peaks[limit] if known else None,
                len(counted),
                setting.batch / median if card else None,
                peaks[name] / 1e9 if card and known else None,
            )
        )
    return rows


@functools.cache
def built(name: str, backbone: str, image_size: int, device: str) -> nn.Module:
    """The model of a contender, one for all settings."""
    torch.manual_seed(0)
    return CONTENDERS[name].build(BACKBONES[backbone], image_size).to(device)


def entry(model: nn.Module, images: torch.Tensor, setting: Setting) -> Turns:
    """What takes turns with others in a setting."""
    ways = setting.dtype, setting.channels_last, setting.cuda_graph, setting.compiled
    return Turns(model, images, setting.mode == TRAINING, *ways)


def profile(setting: Setting, names: Sequence[str]) -> str:
    """Where the time of one turn of each contender goes, as Markdown."""
    parts = []
    for name in names:
        model = built(name, setting.backbone, setting.image_size, setting.device)
        images = torch.randn(setting.batch, 3, *[setting.image_size] * 2).to(setting.device)
        turns = entry(model, images, setting)
        for _ in range(3):
            turns.turn()
        body = [
            (f'`{operation}`', f'{share:.1%}', f'{calls:,}')
            for operation, share, calls in profiled(turns, rows=15)
        ]
        head = ('operation', 'share of the time', 'calls')
        table = tables.pipes(head, body, left=head[:1])
        parts.append(f'### {name}: {setting}\n\n{table}\n')
    return '\n'.join(parts)


def read(path: Path) -> dict[Setting, list[Row]]:
    """What a CSV file of measurements holds."""
    found: dict[Setting, list[Row]] = {}
    for setting, row in tabular.read(path, Setting, Row):
        found.setdefault(setting, []).append(row)
    return found


def write(results: dict[Setting, list[Row]], path: Path) -> None:
    """Writes them, whole or not at all."""
    measured = ((setting, row) for setting, there in results.items() for row in there)
    tabular.write(path, measured, Setting, Row)


def markdown(results: dict[Setting, list[Row]]) -> str:
    """One table for each backbone and mode, with batches and types beside each other."""
    parts = []
    for title, settings in _grouped(results):
        names = _ordered(row.contender for setting in settings for row in results[setting])
        head = ['contender', 'trained parameters']
        for setting in settings:
            what = f'batch {setting.batch}'
            if setting.device == 'cuda':
                what += f', {setting.way}'
                head += [f'{what}: images/s', 'GB']
            head += [f'{what}: time', 'quartiles', 'memory']
        body = []
        for name in names:
            line = [name]
            for setting in settings:
                row = next((r for r in results[setting] if r.contender == name), None)
                if len(line) == 1:
                    line.append(f'{row.parameters:,}' if row else tables.MISSING)
                if setting.device == 'cuda':
                    line += [
                        tables.number(row and row.images_per_second),
                        tables.number(row and row.gigabytes, '.2f'),
                    ]
                if row is None:
                    line += [tables.MISSING] * 3
                else:
                    line += [
                        f'{row.time:.2f}',
                        f'{row.low:.2f} to {row.high:.2f}',
                        tables.number(row.memory, '.2f'),
                    ]
            body.append(line)
        rounds = sorted({row.rounds for setting in settings for row in results[setting]})
        span = str(rounds[0]) if len(rounds) == 1 else f'{rounds[0]} to {rounds[-1]}'
        table = tables.pipes(head, body, left=head[:1])
        parts.append(f'### {title}\n\n{table}\n\nMedians of {span} rounds.\n')
    return '\n'.join(parts)


def draw(results: dict[Setting, list[Row]], path: Path) -> list[Path]:
    """Draws time and memory of every contender, a panel for each table."""
    groups = list(_grouped(results))
    sizes = [len({row.contender for s in settings for row in results[s]}) for _, settings in groups]
    heights = [60 + 15 * size for size in sizes]
    figure = figures.new(720, sum(heights), layout='constrained')
    axes = figure.subplots(
        len(groups), 2, squeeze=False, sharey='row', gridspec_kw=dict(height_ratios=heights)
    )
    for (title, settings), (left, right) in zip(groups, axes, strict=True):
        names = _ordered(row.contender for setting in settings for row in results[setting])
        places = {name: -index for index, name in enumerate(names)}
        for ax, what in ((left, 'time'), (right, 'memory')):
            figures.bare(ax)
            ax.axvline(1, color=figures.INK, linewidth=0.8)
            for setting, mark in zip(settings, itertools.cycle('osD^vP'), strict=False):
                rows = [row for row in results[setting] if getattr(row, what) is not None]
                ax.scatter(
                    [getattr(row, what) for row in rows],
                    [places[row.contender] for row in rows],
                    marker=mark,
                    s=18,
                    color=[
                        figures.ACCENT if row.contender.startswith('gleam') else figures.SOFT
                        for row in rows
                    ],
                    label=f'batch {setting.batch}, {setting.way}',
                )
            ax.set_xlabel(f'{what}, by the limit')
        left.set_yticks(list(places.values()), [escape.figure(name) for name in names])
        left.set_title(escape.figure(title), loc='left', fontsize=10, color=figures.INK)
        right.legend(fontsize=8, frameon=False, loc='best')
    return figures.save(figure, path, 'svg')


def _grouped(results: Iterable[Setting]) -> Iterable[tuple[str, list[Setting]]]:
    def key(setting: Setting) -> tuple:
        s = setting
        return s.device, s.backbone, s.image_size, s.mode, s.launched

    for (device, backbone, size, mode, launched), members in itertools.groupby(
        sorted(results, key=key), key
    ):
        place = ', on a card' if device == 'cuda' else ''
        yield f'{BACKBONES[backbone].title} at {size}, {mode}{place}{launched}', list(members)


def _ordered(names: Iterable[str]) -> list[str]:
    there = set(names)
    return [name for name in CONTENDERS if name in there]


def settings_of(args: argparse.Namespace) -> list[Setting]:
    """What the flags ask for, the small ones first."""
    defaults = ON_CARD if args.device == 'cuda' else ON_CPU
    found = []
    for batch, dtype, mode, backbone in itertools.product(
        args.batches or defaults['batches'],
        args.dtypes or defaults['dtypes'],
        args.modes,
        args.backbones or defaults['backbones'],
    ):
        found.append(
            Setting(
                args.device,
                backbone,
                args.image_size,
                mode,
                batch,
                dtype,
                args.channels_last,
                args.cuda_graph and mode == TRAINING,  # an evaluation is not recorded
                args.compile or '',
            )
        )
    return found


def contenders_of(setting: Setting, only: Sequence[str] | None) -> list[str]:
    """Who takes part: all by default, but at evaluation for those that change nothing there."""
    libraries = {CONTENDERS[name].origin for name in only or CONTENDERS}
    return [
        name
        for name, contender in CONTENDERS.items()
        if (only is None or name in only or (contender.limit and contender.origin in libraries))
        and (setting.mode == TRAINING or contender.evaluated)
        and (setting.device == 'cuda' or not contender.of_a_card)
        and (contender.origin == MMPRETRAIN or BACKBONES[setting.backbone].timm is not None)
    ]


def missing_of(
    settings: Iterable[Setting],
    only: Sequence[str] | None,
    results: Mapping[Setting, Sequence[Row]],
) -> dict[Setting, list[str]]:
    """The contenders of each setting that are wanted and not measured yet, where there are any."""
    missing = {}
    for setting in settings:
        known = {row.contender for row in results.get(setting, ())}
        names = [name for name in contenders_of(setting, only) if name not in known]
        if names:
            missing[setting] = names
    return missing


def note(folder: Path, what: str, device: str = 'cpu', replaces: bool = True) -> None:
    """Notes in a folder on which machine and by which command something was measured.

    Args:
        folder: The folder.
        what: What was measured.
        device: On what.
        replaces: Whether this took the place of what was measured of it before, or came beside it.
    """
    path = folder / 'machines.json'
    record = json.loads(path.read_text()) if path.is_file() else {}
    if not replaces and (before := sum(key.split(', run ')[0] == what for key in record)):
        what = f'{what}, run {before + 1}'
    record[what] = environment(device) | {
        'threads': str(torch.get_num_threads()),
        'load': f'{os.getloadavg()[2]:.1f} in a quarter of an hour, of {os.cpu_count()} cores',
        'commit': _commit(),
        'command': shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]]),
    }
    write_bytes(path, json.dumps(record, indent=2, sort_keys=True).encode() + b'\n')


def _commit() -> str:
    """The commit that is measured, with a mark where files have changed since, results aside."""
    commit = _git('describe', '--always', '--exclude=*')
    others = ':/', f':(exclude){FOLDER}'
    changed = _git('status', '--porcelain', '--untracked-files=no', '--', *others)
    return f'{commit}-dirty' if changed else commit or 'no checkout'


def _git(*arguments: str) -> str:
    command = ['git', *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument(
        '--backbones',
        nargs='+',
        choices=BACKBONES,
        help='vit-s and swin-t; on a card vit-b, swin-b',
    )
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
    parser.add_argument('--batches', type=int, nargs='+', help='4 and 32; on a card 32 and 128')
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES, help='float32; on a card bf16 and fp16 as well'
    )
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument(
        '--cuda-graph', action='store_true', help='record the passes of a step and replay them'
    )
    parser.add_argument('--compile', choices=COMPILED, help='by torch.compile, in which mode')
    parser.add_argument('--image-size', type=int, default=224)
    parser.add_argument(
        '--only', nargs='+', choices=CONTENDERS, help='contenders beside the limits'
    )
    parser.add_argument('--rounds', type=int, default=10, help='counted turns of each contender')
    parser.add_argument('--minutes', type=float, default=60, help='of all settings together')
    parser.add_argument('--threads', type=int, help='threads of PyTorch on a CPU')
    parser.add_argument('--profile', action='store_true', help='say where the time goes instead')
    parser.add_argument('--out', type=Path, default=FOLDER, help='folder of the tables')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and writes what was measured after every setting."""
    args = parse_args(argv)
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    settings = settings_of(args)
    if args.profile:
        told = [profile(setting, contenders_of(setting, args.only)) for setting in settings]
        write_bytes(args.out / 'profile.md', '\n'.join(told).encode())
        print(f'wrote {args.out / "profile.md"}')
        return
    results = read(args.out / 'step.csv')
    missing = missing_of(settings, args.only, results)
    end = time.monotonic() + 60 * args.minutes
    for index, (setting, names) in enumerate(missing.items()):
        share = (end - time.monotonic()) / (len(missing) - index)
        print(f'{setting} ...', flush=True)
        rows = measure(setting, names, args.rounds, share)  # beside the limits, known or not
        results.setdefault(setting, []).extend(row for row in rows if row.contender in names)
        write(results, args.out / 'step.csv')
    if missing:
        names = ', '.join(dict.fromkeys(setting.backbone for setting in missing))
        batches = ', '.join(dict.fromkeys(str(setting.batch) for setting in missing))
        modes = ' and '.join(dict.fromkeys(setting.mode for setting in missing))
        way = ', CUDA graphs' if args.cuda_graph else ''
        way += f', compiled, {args.compile}' if args.compile else ''
        dtypes = ', '.join(dict.fromkeys(setting.dtype for setting in missing))
        what = f'{modes} of {names} at batch {batches} in {dtypes} on {args.device}{way}'
        note(args.out, what, args.device, replaces=False)
    write_bytes(args.out / 'step.md', markdown(results).encode())
    for path in draw(results, args.out / 'step'):
        print(f'wrote {path}')
    print(markdown(results))


if __name__ == '__main__':
    main()
