"""What `cache_features` saves: the CPU time of trainings with it and without, in turn.

    python benchmarks/features.py                                   # a linear probe, minutes
    python benchmarks/features.py --recipe vit-mini_lora_mini-land --options model.petl.blocks=[-1]

The time is that of a whole training with its validations, the making of the features included, and
not that of the test. features.csv and features.md go to --out; results of other recipes stay there.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tabular
from mmengine.config import DictAction
from step import FOLDER, note

from gleam_mm.config import recipes
from gleam_mm.engine import launch
from gleam_mm.fileio import write_bytes
from gleam_mm.output import tables

KEY = 'default_hooks.device_cache.cache_features'


@dataclass(frozen=True)
class Row:
    """What was measured of a recipe.

    Attributes:
        recipe: Its name, and the options beside it.
        epochs: How many were trained.
        ratio: The median over repeats of the time without the cache by that with it.
        accuracy: The last on validation, without the cache.
        cached_accuracy: The same with it.
        repeats: How often either was trained.
    """

    recipe: str
    epochs: int
    ratio: float
    accuracy: float
    cached_accuracy: float
    repeats: int


def train(recipe: str, options: Mapping[str, Any], folder: Path) -> tuple[float, float]:
    """CPU seconds of a training, and its last accuracy on validation."""
    cfg = recipes.load(recipe, dict(options))
    launch.set_work_dir(cfg, str(folder))
    launch.set_dataloader_defaults(cfg)
    cfg.experiment_name = folder.name
    runner = launch.build_runner(cfg, 'none')
    start = time.process_time()
    runner.train()
    taken = time.process_time() - start
    return taken, float(runner.message_hub.get_scalar('val/accuracy/top1').data[0][-1])


def measure(recipe: str, options: Mapping[str, Any], epochs: int, repeats: int) -> Row:
    """Trains in turn."""
    length = {
        # What workers take is not this process's time.
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'train_cfg.max_epochs': epochs,
        'param_scheduler.0.end': 1,
        'param_scheduler.1.begin': 1,
    }
    ratios, accuracies = [], {}
    with tempfile.TemporaryDirectory() as place:
        for repeat in range(repeats):
            seconds = {}
            for kept in (False, True):
                given = {**options, **length, KEY: kept}
                folder = Path(place) / f'{repeat}-{kept}'
                seconds[kept], accuracies[kept] = train(recipe, given, folder)
            ratios.append(seconds[False] / seconds[True])
    told = ' '.join([recipe, *(f'{key}={value}' for key, value in options.items())])
    return Row(
        told, epochs, statistics.median(ratios), accuracies[False], accuracies[True], repeats
    )


def read(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    return [row for (row,) in tabular.read(path, Row)]


def markdown(found: Sequence[Row]) -> str:
    """Them as a table."""
    head = ('training', 'epochs', 'times as fast', 'val, without', 'val, with the cache')
    body = [
        (
            f'`{row.recipe}`',
            str(row.epochs),
            f'{row.ratio:.1f}',
            f'{row.accuracy:.2f}',
            f'{row.cached_accuracy:.2f}',
        )
        for row in found
    ]
    return f'{tables.pipes(head, body, left=head[:1])}\n'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--recipe', default='vit-mini_linear_mini-digits')
    parser.add_argument('--options', nargs='+', action=DictAction, default={})
    parser.add_argument('--epochs', type=int, default=15)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--out', type=Path, default=FOLDER, help='folder of the tables')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and writes."""
    args = parse_args(argv)
    row = measure(args.recipe, args.options, args.epochs, args.repeats)
    found = [other for other in read(args.out / 'features.csv') if other.recipe != row.recipe]
    found.append(row)
    tabular.write(args.out / 'features.csv', ((one,) for one in found), Row)
    write_bytes(args.out / 'features.md', markdown(found).encode())
    note(args.out, f'features of {row.recipe}')
    print(markdown(found))


if __name__ == '__main__':
    main()
