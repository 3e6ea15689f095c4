"""Makes an ordinary MMPretrain model of a trained method: its updates folded into the backbone."""

import copy
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from torch import Tensor

from gleam_mm.checkpoint import classes_of
from gleam_mm.config.datasets import datasets_in
from gleam_mm.config.keys import TEST_KEYS
from gleam_mm.datasets import CustomDataset, ImageList
from gleam_mm.datasets.held_out import shares
from gleam_mm.datasets.images import SUFFIXES
from gleam_mm.fileio import require_new, write_bytes
from gleam_mm.layouts import OwnClassifier
from gleam_mm.models import PETLClassifier, load_model
from gleam_mm.registry import DATASETS, SCOPE, registered, scope_of
from gleam_mm.version import __version__

_OUR_ARGUMENTS = (
    *('skip_unreadable', 'only_classes', 'part'),
    *('hold_out', 'take_held_out', 'hold_out_seed'),
)
"""Those of our datasets that MMPretrain's of the same names do not have."""


def merge_checkpoint(cfg: Config, checkpoint: str | Path, out: str | Path) -> tuple[Path, Path]:
    """Merges a checkpoint and writes a model that needs no GLEAM-MM.

    With an MMPretrain backbone it is an ``ImageClassifier``, with one of timm a ``TimmClassifier``,
    whose checkpoint timm itself loads as well.

    Args:
        cfg: The config that the checkpoint was trained with; left as it is.
        checkpoint: A ``.pth`` checkpoint, or an adapter file.
        out: The ``.pth`` file to write. The config goes beside it, to the same name with ``.py``.

    Returns:
        The paths of the checkpoint and of the config.

    Raises:
        FileExistsError: The checkpoint or the config to write exists.
        FileNotFoundError: The checkpoint, or the weights of the backbone, do not exist.
        CheckpointError: The checkpoint does not fit the config.
        MergeError: The method cannot be merged exactly.
        ValueError: ``out`` is no ``.pth`` file, or MMPretrain alone cannot express the model.
    """
    out = Path(out)
    if out.suffix != '.pth':
        raise ValueError(f'{out}: the merged checkpoint is a .pth file, as MMPretrain reads it')
    written = out, out.with_suffix('.py')
    for file in written:
        require_new(file)
    model = load_model(cfg, checkpoint)
    model.petl.merge()
    cfg = copy.deepcopy(cfg)
    if hasattr(model.head, 'num_classes'):
        cfg.model.head.num_classes = model.head.num_classes
    config, state_dict = _deployed(cfg, model)

    buffer = io.BytesIO()
    torch.save({'state_dict': state_dict, 'meta': _meta(checkpoint)}, buffer)
    for file, data in zip(written, (buffer.getvalue(), config.pretty_text.encode()), strict=True):
        write_bytes(file, data)
    return written


def _meta(checkpoint: str | Path) -> dict[str, Any]:
    """What the merged checkpoint tells about itself."""
    classes = classes_of(checkpoint)
    meta = {'dataset_meta': {'classes': classes}} if classes else {}
    return {**meta, 'merged_by': f'GLEAM-MM {__version__}'}


def _deployed(cfg: Config, model: PETLClassifier) -> tuple[Config, dict[str, Tensor]]:
    """The config and the weights of the model without its method."""
    own = model.petl.layout.own_classifier(cfg.model.backbone.to_dict())
    if own is None:
        described, state_dict = _as_mmpretrain(cfg, model)
    else:
        described, state_dict = _as_own(cfg, model, own)
    config = Config(dict(default_scope='mmpretrain', model=described))
    if (preprocessor := cfg.get('data_preprocessor')) is not None:
        config.data_preprocessor = preprocessor
        config.data_preprocessor.pop('batch_augments', None)  # for training only
    if cfg.get('test_dataloader') is not None:
        # MMPretrain's inferencer reads the pipeline, and its tools/test.py all of it.
        for key in TEST_KEYS:
            config[key] = copy.deepcopy(cfg.get(key)) or {}
        with scope_of(cfg):
            tested = datasets_in(config.test_dataloader.dataset)
            needs_us = [_for_mmpretrain(dataset) for dataset in tested]
        if any(needs_us):  # for testing; who only predicts does without
            config.custom_imports = dict(imports=['gleam_mm'], allow_failed_imports=True)
    return config, state_dict


def _for_mmpretrain(dataset: Any) -> bool:
    """Says a dataset as MMPretrain knows it, if it can: a list of images is a ``CustomDataset``.

    One whose images or labels would be others there stays what it is.

    Returns:
        Whether it cannot.
    """
    kind = dataset.get('type')
    name = (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
    if registered(DATASETS, name) is None or name not in DATASETS.module_dict:
        return False
    ours = DATASETS.module_dict[name]
    of_folders, of_lists = (
        isinstance(ours, type) and issubclass(ours, base) for base in (CustomDataset, ImageList)
    )
    if shares(dataset.get('hold_out') or 0) or (of_folders and _names_folders(dataset)):
        dataset.type = f'{SCOPE}.{name}'
        return True
    if registered(MMPRETRAIN_DATASETS, name) is not None:
        dataset.type = name
        for argument in _OUR_ARGUMENTS:
            dataset.pop(argument, None)
        if of_folders:
            dataset.setdefault('extensions', list(SUFFIXES))  # theirs leave some out
        return False
    built = _list_of(dataset) if of_lists else None
    if built is None:
        dataset.type = f'{SCOPE}.{name}'
        return True
    kept = {key: dataset[key] for key in ('pipeline', 'indices') if key in dataset}
    classes = list(built.metainfo['classes'])
    dataset.clear()
    dataset.update(
        type='CustomDataset',
        ann_file=str(built.ann_file),
        data_prefix=str(built.image_root),
        metainfo=dict(classes=classes),
        test_mode=True,
        **kept,
    )
    return False


def _list_of(dataset: Any) -> ImageList | None:
    """The list of a dataset's images, and their folder; None where neither can be told."""
    try:
        built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
        with suppress(FileNotFoundError):  # the usual folder, where its data are not here
            built.load_data_list()
    except (OSError, TypeError, ValueError):
        return None
    return built


def _names_folders(dataset: Any) -> bool:
    """Whether folders have labels by their names here, and in MMPretrain by their order, others."""
    if dataset.get('ann_file'):
        return False
    names = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes') or ()
    return isinstance(names, str) or list(names) != sorted(names, key=str)


def _as_mmpretrain(cfg: Config, model: PETLClassifier) -> tuple[dict, dict[str, Tensor]]:
    described = {**cfg.model.to_dict(), 'type': 'ImageClassifier'}
    described.pop('petl')
    described['backbone'].pop('init_cfg', None)
    parts = {'backbone': model.backbone, 'neck': model.neck, 'head': model.head}
    state_dict = {
        f'{name}.{key}': tensor
        for name, part in parts.items()
        if part is not None
        for key, tensor in part.state_dict().items()
    }
    return described, state_dict


def _as_own(
    cfg: Config, model: PETLClassifier, own: OwnClassifier
) -> tuple[dict, dict[str, Tensor]]:
    """The library pools and classifies by itself: its model takes the place of neck and head."""
    neck, head = cfg.model.get('neck') or {}, cfg.model.get('head') or {}
    if neck.get('mode') != own.neck.get('mode') or head.get('type') != 'LinearClsHead':
        raise ValueError(
            f"model.neck={dict(neck)}, model.head.type={head.get('type')!r}: MMPretrain's "
            f'{own.config["type"]} can only express neck={dict(own.neck)} and a LinearClsHead'
        )
    state_dict = own.model.state_dict()
    for key, tensor in model.head.fc.state_dict().items():
        state_dict[f'{own.head}.{key}'] = tensor
    return {**own.config, 'num_classes': head['num_classes']}, state_dict
