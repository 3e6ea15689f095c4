"""Files of weights, measured on the validation split of their config."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config

from gleam_mm import errors
from gleam_mm.combine import read
from gleam_mm.config.keys import TEST_KEYS
from gleam_mm.engine import launch
from gleam_mm.engine.metrics import numbers_of
from gleam_mm.models.building import load_trained, read_trained
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.models.parts import checked_part


def validate(cfg: Config, checkpoints: Sequence[str | Path]) -> list[dict[str, float]]:
    """Measures checkpoints or adapter files of one config. No test split is read.

    Args:
        cfg: The config; left as it is.
        checkpoints: The files.

    Returns:
        The metrics of each, without times.

    Raises:
        UserError: Config, data and files do not fit each other.
    """
    cfg = deepcopy(cfg)
    found = []
    # The work directory of the training keeps its own config and logs.
    with TemporaryDirectory() as folder, errors.setup():
        if cfg.get('val_dataloader') is None:
            raise ValueError(f"{cfg.filename}: the config has no 'val_dataloader' to measure on")
        cfg.work_dir, cfg.load_from, cfg.resume = folder, None, False
        cfg.model.pop('teacher', None)
        for key in TEST_KEYS:
            cfg[key] = None
        runner = launch.build_runner(cfg, 'none')
        model = runner.model
        if not isinstance(model, PETLClassifier):
            raise ValueError(f'{cfg.filename}: model.type is no PETLClassifier')
        for checkpoint in checkpoints:
            load_trained(model, read_trained(checkpoint), checkpoint)
            metrics = runner.val()
            found.append(numbers_of(metrics))
    return found


def validate_each(cfg: Config, checkpoints: Sequence[str | Path]) -> list[dict[str, float]]:
    """As :func:`validate`, each with the method that it tells of, in the place of the config's.

    Raises:
        UserError: Config, data and files do not fit each other.
    """
    found = []
    for checkpoint in checkpoints:
        own = deepcopy(cfg)
        with errors.setup():
            own.model.petl = checked_part('method', read(checkpoint).metadata['method'])
        found += validate(own, [checkpoint])
    return found


def cells(metrics: Mapping[str, float]) -> list[str]:
    """Metrics for a table: accuracies in % with two digits, and what is below one with four."""
    return [f'{value:.2f}' if abs(value) >= 1 else f'{value:.4f}' for value in metrics.values()]
