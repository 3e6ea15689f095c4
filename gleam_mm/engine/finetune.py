"""A training in one call: what its recipe does, on data told by their path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gleam_mm import errors
from gleam_mm.checkpoint import ADAPTER
from gleam_mm.config import recipes
from gleam_mm.config.keys import DATALOADERS
from gleam_mm.datasets.sources import HELD_OUT, source_of
from gleam_mm.engine import launch
from gleam_mm.engine.classes import fill_classes, names_of
from gleam_mm.registry import DATASETS, scope_of


class Finetuned(NamedTuple):
    """What a fine-tuning came to.

    Attributes:
        adapter: The adapter file, for :class:`gleam_mm.Predictor`.
        metrics: What it was tested with last: on the test split, or else on validation.
    """

    adapter: Path
    metrics: dict[str, float]


def finetune(
    data: str | Path,
    backbone: str = 'vit-b',
    method: str = 'gleam-l',
    work_dir: str | Path | None = None,
    epochs: int | None = None,
    hold_out: float = HELD_OUT,
    options: Mapping[str, Any] | None = None,
) -> Finetuned:
    """Fine-tunes a backbone on pictures, as ``gleam-mm train <backbone>_<method>_folder`` does.

    Args:
        data: A folder of ``train/<class>/*.jpg``, with ``val`` and ``test`` beside it where there
            are any, or of ``<class>/*.jpg``; a CSV file; tar files of WebDataset; or a saved
            dataset of Hugging Face's library. Without a ``val``, a part of ``train`` is held out.
        backbone: A name of ``gleam-mm recipes``.
        method: Another one.
        work_dir: Where to write; by default ``work_dirs/<backbone>_<method>_<name of the data>``,
            or ``...-2`` and so on where there is a training already.
        epochs: How long to train, of which a tenth warms up; one epoch alone keeps its
            rate. By default as the recipe has it.
        hold_out: The share that is held out for validation, where it has no split of its own.
        options: Overrides of the config: ``{'train_cfg.max_epochs': 20}``.

    Returns:
        The adapter file and the metrics.

    Raises:
        UserError: Something does not fit: a name, the data, an option. The message says what to do.

    Examples:
        >>> birds = gleam_mm.finetune('birds/', backbone='vit-s-dinov2', method='gleam-l')
        >>> gleam_mm.Predictor(birds.adapter)('robin.jpg')
    """
    with errors.setup():
        source = source_of(data, hold_out)
        options = {**_of_length(epochs), **(options or {})}
        cfg = recipes.load(f'{backbone}_{method}_{source.dataset}', options)
        launch.use_source(cfg, source, options)
        with scope_of(cfg):
            training = DATASETS.build(cfg.train_dataloader.dataset)
        fill_classes(cfg, names_of(training))
        for loader in DATALOADERS:
            if len(training) < _FEW and f'{loader}.num_workers' not in options:
                cfg[loader].num_workers = 0
        name = Path(data).stem.replace('*', '').strip('-_') or Path(data).parent.name
        folder = None if work_dir is None else str(work_dir)
        runner = launch.build_training(cfg, folder, name=f'{backbone}_{method}_{name}')
    runner.train()
    metrics = runner.test()
    return Finetuned(Path(runner.work_dir) / ADAPTER, dict(metrics))


def _of_length(epochs: int | None) -> dict[str, Any]:
    """Options for so many epochs, of the schedule that recipes for folders have."""
    if epochs is None:
        return {}
    if epochs == 1:  # too short to warm up and to come down again
        return {'train_cfg.max_epochs': 1, 'param_scheduler': None}
    warm_up = max(1, epochs // 10)
    return {
        'train_cfg.max_epochs': epochs,
        'param_scheduler.0.end': warm_up,
        'param_scheduler.1.begin': warm_up,
    }


_FEW = 200
"""Of fewer pictures, workers take longer to start than the pictures to be read."""
