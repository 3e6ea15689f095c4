"""What tools print at the end of a training or test, and what they write of it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
from mmengine.dist import get_rank
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from gleam_mm.checkpoint import ADAPTER
from gleam_mm.config import recipes
from gleam_mm.engine.console_hook import headline
from gleam_mm.engine.dist import unwrapped
from gleam_mm.engine.metrics import TIMES, plain_metrics
from gleam_mm.models import PETLClassifier, params
from gleam_mm.output import tables
from gleam_mm.petl import Supernet
from gleam_mm.shell import command


def tell(text: str) -> None:
    """Prints once, however many processes there are."""
    if get_rank() == 0:
        print(f'\n{text}', flush=True)


def write_metrics(metrics: Mapping[str, Any], file: str | Path) -> None:
    """Writes metrics to a ``.json``, ``.yaml`` or ``.pkl`` file, all at once."""
    if get_rank() == 0:  # through MMEngine's local backend, which is ours
        mmengine.dump(plain_metrics(metrics), file)


def dump_predictions(runner: Runner, file: str) -> None:
    """Makes the test write its predictions to a ``.pkl`` file."""
    runner.test_loop.evaluator.metrics.append(DumpResults(out_file_path=file))


def of_metrics(metrics: Mapping[str, Any]) -> str:
    """Metrics as lines of text, one a metric; those of a number a class have them in a line."""
    told = {
        name: _told(value) for name, value in plain_metrics(metrics).items() if name not in TIMES
    }
    width = max(map(len, told), default=0)
    return '\n'.join(f'{name:<{width}}  {text}' for name, text in told.items())


def _told(value: Any) -> str:
    if not isinstance(value, list):
        return 'none' if value is None else f'{value:.4f}'
    if any(isinstance(part, list) for part in value):
        return f'{" x ".join(map(str, np.shape(value)))} numbers, which --out writes'
    return ' '.join(map(_told, value))


def of_training(
    runner: Runner,
    metrics: Mapping[str, float] | None,
    seconds: float,
    best: bool = False,
    data: str | None = None,
) -> str:
    """What a training run came to, and the commands to try next.

    Args:
        runner: The runner after training.
        metrics: Metrics on the test split, or None where nothing was tested.
        seconds: How long training took.
        best: Whether the weights are the best by validation, not the last ones.
        data: Where the pictures are, if they took the place of the config's.

    Returns:
        Lines of text.
    """
    model = unwrapped(runner.model)
    lines = []
    if metrics is not None:
        weights = 'the best weights by validation' if best else 'the final weights'
        lines.append(('accuracy', f'{headline(metrics)} on test, with {weights}'))
    if validated := _last_validation(runner):
        lines.append(('validation', f'{headline(validated)} at the end'))
    work_dir = _shown(Path(runner.work_dir))
    adapter = work_dir / ADAPTER
    if isinstance(model, PETLClassifier):
        counted = params.count(model)
        backbone = params.size(model.backbone)
        lines.append(
            (
                'trainable',
                f'{counted.trainable:,} parameters ({counted.trainable / backbone:.2%} of the '
                f"backbone's), and {counted.head:,} of the head",
            )
        )
    if adapter.is_file():
        lines.append(('adapter', f'{adapter} ({tables.size(adapter.stat().st_size)})'))
    minutes, rest = divmod(round(seconds), 60)
    lines.append(('time', f'{minutes} min {rest} s of training'))
    lines += [('try next', line) for line in _next_commands(runner, work_dir, adapter, data)]
    names = ['' if i and lines[i - 1][0] == name else name for i, (name, _) in enumerate(lines)]
    width = max(map(len, names))
    return '\n'.join(
        f'{name:<{width}}  {text}' for name, (_, text) in zip(names, lines, strict=True)
    )


def _last_validation(runner: Runner) -> dict[str, float]:
    logged = {
        name.removeprefix('val/'): scalar.current()
        for name, scalar in runner.message_hub.log_scalars.items()
        if name.startswith('val/')
    }
    return {name: value for name, value in logged.items() if name not in TIMES}


def _next_commands(runner: Runner, work_dir: Path, adapter: Path, data: str | None) -> list[str]:
    config = Path(runner.cfg.filename)
    commands = []
    if adapter.is_file():
        commands.append(command('test', work_dir / config.name, adapter))
    try:
        recipe = recipes.parse(config.stem)
    except recipes.RecipeError:
        recipe = None
    model = unwrapped(runner.model)
    petl = getattr(model, 'petl', None)
    if adapter.is_file() and isinstance(petl, Supernet) and petl.is_supernet:
        commands.append(command('search', recipe or config, adapter))
    elif recipe is not None:
        other = 'linear' if recipe.method != 'linear' else 'gleam-l'
        pictures = () if data is None else ('--data', data)
        commands.append(command('train', recipe._replace(method=other), *pictures))
    return commands


def _shown(path: Path) -> Path:
    """A path as short as it can be told."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path
