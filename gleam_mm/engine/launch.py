"""From a config and the command line's flags to a runner."""

from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from gleam_mm.arguments import hint_at
from gleam_mm.engine.classes import fill_num_classes
from gleam_mm.engine.dist import init_dist
from gleam_mm.engine.resume import find_resumable
from gleam_mm.engine.runner import PETLRunner
from gleam_mm.registry import OPTIMIZERS, RUNNERS

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
TRAINING_KEYS = (
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'val_dataloader',
    'val_cfg',
    'val_evaluator',
)


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Sets where a run writes: the given folder, the config's, or ``work_dirs/<config's name>``."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(cfg.filename).stem)


def set_dataloader_defaults(
    cfg: Config, pin_memory: bool = True, persistent_workers: bool = True
) -> None:
    """Gives dataloaders what MMPretrain's tools give them, unless the config says otherwise.

    Args:
        cfg: The whole config; changed in place.
        pin_memory: False switches pinned memory off even where the config has it.
        persistent_workers: The same for workers that live on between epochs.
    """
    for name in DATALOADERS:
        dataloader = cfg.get(name)
        if dataloader is None:
            continue
        cfg[name] = ConfigDict(
            pin_memory=torch.cuda.is_available(),
            persistent_workers=dataloader.get('num_workers', 0) > 0,
            collate_fn=dict(type='default_collate'),
        )
        cfg[name].update(dataloader)
        if not pin_memory:
            cfg[name].pin_memory = False
        if not persistent_workers:
            cfg[name].persistent_workers = False


def check_schedule(cfg: Config) -> None:
    """Refuses a schedule whose last part begins after the end of the training.

    MMEngine's message for it names neither the key nor the number of epochs.

    Raises:
        ValueError: ``train_cfg.max_epochs`` is not larger than the begin of a scheduler.
    """
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    schedulers = cfg.get('param_scheduler') or []
    for index, scheduler in enumerate([schedulers] if isinstance(schedulers, dict) else schedulers):
        begin = scheduler.get('begin', 0)
        if epochs is not None and scheduler.get('by_epoch', True) and begin >= epochs:
            shorter = (
                f'shorten the warm-up: --cfg-options param_scheduler.{max(index - 1, 0)}.end=1 '
                f'param_scheduler.{index}.begin=1'
                if epochs > 1
                else 'do without a schedule: --cfg-options param_scheduler=None'
            )
            raise ValueError(
                f'train_cfg.max_epochs={epochs}, but param_scheduler.{index} begins at epoch '
                f'{begin}, when warm-up ends: train longer, or {shorter}'
            )


def check_backbone(cfg: Config) -> None:
    """Refuses to train a method on a frozen backbone of random weights, which each run would draw.

    Raises:
        ValueError: No pretrained weights are named, and ``model.allow_random_backbone`` is not set.
    """
    model = cfg.model
    backbone, petl = model.get('backbone'), model.get('petl')
    if petl is None or not isinstance(backbone, dict) or model.get('allow_random_backbone'):
        return
    init_cfg = backbone.get('init_cfg') or []
    named = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
    if (
        any(part.get('type') == 'Pretrained' for part in named)
        or any(backbone.get(key) for key in ('pretrained', 'checkpoint_path'))  # timm's
        or (isinstance(petl, dict) and petl.get('type') == 'FullTuning')
    ):
        return
    raise ValueError(
        'model.backbone has no pretrained weights: a method would be trained on random features, '
        "others in every run. Name them in init_cfg=dict(type='Pretrained', checkpoint=...), or "
        'set model.allow_random_backbone=True if this is meant'
    )


def check_optimizer(cfg: Config) -> None:
    """Refuses an optimizer that there is not, of which MMEngine says that None is not callable.

    Raises:
        ValueError: ``optim_wrapper.optimizer.type`` is unknown; the message names the nearest.
    """
    kind = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('type')
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        known, registry = set(), OPTIMIZERS
        while registry is not None:
            known |= registry.module_dict.keys()
            registry = registry.parent
        raise ValueError(
            f'optim_wrapper.optimizer.type={kind!r}: there is no such optimizer'
            f'{hint_at(kind, known)}'
        )


def check_head(cfg: Config) -> None:
    """Refuses to train or test a classifier without a head.

    Raises:
        ValueError: ``model.head`` is missing.
    """
    if cfg.model.get('petl') is not None and cfg.model.get('head') is None:
        raise ValueError(
            "model.head is missing: add dict(type='LinearClsHead', in_channels=..., "
            'num_classes=None), whose in_channels is the width of the backbone'
        )


def scale_learning_rate(cfg: Config) -> None:
    """Switches MMEngine's scaling of the learning rate by the batch size on.

    Raises:
        ValueError: The config does not say which batch size its learning rate is for.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ValueError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config: the '
            'batch size, over all processes, that its learning rate is for'
        )
    cfg.auto_scale_lr.enable = True


def use_amp(cfg: Config) -> None:
    """Switches automatic mixed precision on: with a scaled loss on GPUs, bfloat16 on the CPU."""
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def set_resume(cfg: Config, resume: str | None) -> None:
    """Sets what training goes on from.

    Args:
        cfg: The whole config with its ``work_dir``; changed in place.
        resume: None for a new training. A path. ``''`` for the latest checkpoint in the work
            directory; ``'auto'`` for that or, where there is none, a new training.

    Raises:
        FileNotFoundError: The path does not exist, or there is nothing to resume from.
    """
    if resume is None:
        return
    path = find_resumable(cfg.work_dir) if resume in ('', 'auto') else Path(resume)
    if path is None and resume == 'auto':
        return
    if path is None:
        raise FileNotFoundError(
            f'--resume: there is no checkpoint in {cfg.work_dir} to go on from; give --work-dir or '
            'the path of one, or use --resume auto to start at the beginning'
        )
    if not path.is_file():
        raise FileNotFoundError(f'--resume {resume}: this file does not exist')
    cfg.resume = True
    cfg.load_from = str(path)


def build_runner(cfg: Config, launcher: str, test_only: bool = False) -> Runner:
    """Builds the runner of a config, in each process of a distributed run.

    Args:
        cfg: The whole config; changed in place. The size of the head is filled in where it is None.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        test_only: Takes out what only training needs.

    Raises:
        FileNotFoundError: The data are not where the config says.
        ValueError: Parts of the config do not fit each other.
    """
    cfg.launcher = launcher
    check_head(cfg)
    if not test_only:
        check_optimizer(cfg)
    init_dist(cfg)
    try:
        fill_num_classes(cfg)
    except FileNotFoundError as error:
        if error.filename is None:  # the dataset itself says what to do
            raise
        raise FileNotFoundError(
            f'{error.filename}: no such file or folder; set `data_root` of the datasets, such as '
            '--cfg-options train_dataloader.dataset.data_root=PATH'
        ) from error
    if test_only:
        for key in TRAINING_KEYS:
            cfg[key] = None
        cfg.model.pop('teacher', None)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else PETLRunner.from_cfg(cfg)
