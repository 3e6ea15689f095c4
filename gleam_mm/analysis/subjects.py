"""What is analysed: trained models, and the images that they see."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from gleam_mm import errors
from gleam_mm.checkpoint import classes_of, read_adapter, resolve_path
from gleam_mm.config import recipes
from gleam_mm.config.datasets import prepared_as
from gleam_mm.engine.classes import (
    Names,
    classes_in,
    fill_classes,
    fill_num_classes,
    names_of,
    outputs_of,
)
from gleam_mm.engine.console_hook import on_terminal
from gleam_mm.models import PETLClassifier, build_model
from gleam_mm.models.building import config_of, load_trained, read_trained
from gleam_mm.output import escape
from gleam_mm.registry import DATASETS, scope_of

SPLITS = ('train', 'val', 'test')
_LOADERS = tuple(f'{split}_dataloader' for split in SPLITS)
_WEIGHTS = ('.safetensors', '.pth')


class AnalysisError(ValueError):
    """Something that cannot be analysed; the message says why and what to do."""


@dataclass
class Subject:
    """A model to analyse, in evaluation mode.

    Attributes:
        name: What figures call it.
        cfg: Its config.
        model: The model, with the weights of the checkpoint.
        twin: The backbone as it was before training, without the method.
        checkpoint: Where the weights come from; None for a method at its start.
        metrics: The metrics that an adapter file holds, as split -> name -> value.
        classes: The names of the classes that the weights were trained with, where they say so.
    """

    name: str
    cfg: Config
    model: PETLClassifier
    twin: nn.Module
    checkpoint: Path | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    classes: Names | None = None

    @property
    def method(self) -> str:
        """The class of the method."""
        return type(self.model.petl).__name__

    def describe(self) -> dict[str, Any]:
        """What the JSON says of it."""
        return {
            'name': self.name,
            'config': recipes.name_of(self.cfg),
            'checkpoint': None if self.checkpoint is None else str(self.checkpoint),
            'method': {'class': self.method, **_plain(self.cfg.model.get('petl', {}))},
            'metrics': {split: dict(values) for split, values in self.metrics.items()},
        }


def load_subject(
    text: str,
    options: Mapping[str, Any] | None = None,
    data: str | None = None,
    device: str = 'cpu',
) -> Subject:
    """Loads what a user named on the command line.

    Args:
        text: ``[NAME=]CONFIG:CHECKPOINT``; ``[NAME=]ADAPTER``, whose metadata describe the model;
            or ``[NAME=]CONFIG``, the method at its start. A config is a program, so that one that
            lies beside a file is run only if it is named.
        options: Overrides of the config; those of dataloaders, of the one in ``data``.
        data: A config or recipe whose dataloaders replace those of the subject.
        device: Where the model goes.

    Raises:
        FileNotFoundError: A file does not exist.
        CheckpointError: The checkpoint does not fit the config.
        ValueError: There is no config for a checkpoint, no method in the config, or an option is
            misspelt.
    """
    name, config, checkpoint = _split(text)
    metadata: dict[str, Any] = {}
    if checkpoint is not None and resolve_path(checkpoint).suffix == '.safetensors':
        _, metadata = read_adapter(checkpoint)
    options = dict(options or {})
    # Whose dataloaders are replaced has no use for options of them.
    lent = {key: options.pop(key) for key in [*options] if data is not None and _of_data(key)}
    if config is not None:
        cfg = recipes.load(config, options)
    elif metadata and data is not None:
        cfg = recipes.with_options(config_of(checkpoint), options, checkpoint)
    else:
        beside = sorted(Path(checkpoint).parent.glob('*.py'))
        config = str(beside[0]) if len(beside) == 1 else 'CONFIG'
        raise ValueError(
            f'{checkpoint}: no config is named, and none is run unasked; give {config}:{checkpoint}'
            + (f', or --data {config} for the images' if metadata else '')
        )
    if data is not None:
        _lend_data(cfg, recipes.load(data, lent))
    if 'petl' not in cfg.model:
        raise ValueError(
            f'{config or checkpoint}: the config has no PETL method in model.petl to analyse'
        )

    tensors = None if checkpoint is None else read_trained(checkpoint)
    if tensors is None:
        fill_num_classes(cfg)
    elif names := classes_in(checkpoint):
        fill_classes(cfg, names)
    model = build_model(cfg, tensors)
    twin = make_twin(model)  # before it is trained
    if tensors is not None:
        load_trained(model, tensors, checkpoint)
    model.to(device)
    twin.to(device)
    return Subject(
        name=name or _default_name(cfg, checkpoint),
        cfg=cfg,
        model=model,
        twin=twin,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        metrics=metadata.get('metrics') or {},
        classes=None if checkpoint is None else classes_of(checkpoint),
    )


def make_twin(model: PETLClassifier) -> nn.Module:
    """Copies the backbone of a model, without the method, in evaluation mode.

    What is frozen is shared with the model and needs no further memory; what the method trains of
    the backbone itself is copied as it is now.
    """
    shared = {id(p): p for p in model.backbone.parameters() if not p.requires_grad}
    model.petl.detach()
    twin = copy.deepcopy(model.backbone, dict(shared))
    model.petl.attach(model.backbone)
    twin.requires_grad_(False)
    twin.eval()
    return twin


def build_dataset(cfg: Config, split: str) -> Dataset:
    """Builds the dataset of a split, prepared as for a test.

    Raises:
        UserError: The config has no such split, or its data are not there.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise errors.UserError(f"{cfg.filename}: the config has no '{split}_dataloader'")
    described = copy.deepcopy(loader.dataset)
    test = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if split == 'train' and test is not None:
        described = prepared_as(described, test.dataset)  # no augmentation
    with scope_of(cfg), errors.setup():
        dataset = DATASETS.build(described)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()  # a lazy one reads its lists now
        return dataset


def knows(subject: Subject, dataset: Dataset) -> bool:
    """Whether the classes of a dataset are those that a subject tells, as far as they have names.

    Without names in the checkpoint, their number is compared.
    """
    names, outputs = names_of(dataset), outputs_of(subject.model)
    if names is None or outputs is None:
        return True
    return names == subject.classes if subject.classes else len(names) == outputs


def choose(length: int, most: int | None) -> list[int]:
    """At most so many indices, evenly spaced: many datasets are sorted by class."""
    if most is None or most >= length:
        return list(range(length))
    return [index * length // most for index in range(most)]


def batches(
    subject: Subject,
    dataset: Dataset,
    indices: Sequence[int],
    batch_size: int,
) -> Iterator[tuple[Tensor, list]]:
    """Streams images, with a progress bar on a terminal.

    Yields:
        Preprocessed images of shape (B, 3, H, W) on the model's device, and their data samples.
    """
    described = subject.cfg.get('test_dataloader') or {}
    loader = DataLoader(
        Subset(dataset, list(indices)),
        batch_size=batch_size,
        num_workers=described.get('num_workers', 0),
        collate_fn=pseudo_collate,
    )
    with Progress(disable=not on_terminal()) as progress:
        for batch in progress.track(
            loader, description=f'analysing {escape.rich_markup(subject.name)}'
        ):
            data = subject.model.data_preprocessor(batch, training=False)
            yield data['inputs'], data['data_samples']


def describe_data(cfg: Config, dataset: Dataset, split: str, images: int) -> dict[str, Any]:
    """What the JSON says of the images that were seen."""
    task = cfg[f'{split}_dataloader'].dataset.get('task')  # of a suite of datasets
    name = type(dataset).__name__
    return {
        'dataset': f'{name} {task}' if task else name,
        'split': split,
        'images': images,
        'of': len(dataset),
    }


def class_names(dataset: Dataset | None, number: int) -> list[str]:
    """Names of the classes, or their numbers where the dataset has none, or there is no dataset."""
    names = getattr(dataset, 'metainfo', {}).get('classes')
    return list(map(str, names)) if names else list(map(str, range(number)))


def output_names(subject: Subject, dataset: Dataset) -> list[str]:
    """Names of the classes that a subject tells; of a dataset's where nothing says it is another's.

    Numbers, where the names are not known.
    """
    if subject.classes:
        return list(subject.classes)
    known = dataset if knows(subject, dataset) else None
    return class_names(known, subject.cfg.model.head.num_classes)


def _split(text: str) -> tuple[str, str | None, str | None]:
    """Name, config and checkpoint; the name may be empty, and one of the others None."""
    name, equals, rest = text.partition('=')
    if not equals or '/' in name:
        name, rest = '', text
    config, _, last = rest.rpartition(':')
    if config:
        return name, config, last
    return (name, None, rest) if Path(rest).suffix in _WEIGHTS else (name, rest, None)


def _of_data(option: str) -> bool:
    return option.partition('.')[0] in _LOADERS


def _lend_data(cfg: Config, data: Config) -> None:
    for key in _LOADERS:
        cfg[key] = data.get(key)


def _default_name(cfg: Config, checkpoint: str | None) -> str:
    name = recipes.name_of(cfg)
    with contextlib.suppress(recipes.RecipeError):
        name = recipes.parse(name).method
    return name if checkpoint is not None else f'{name}-untrained'


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, 'to_dict') else dict(value)
