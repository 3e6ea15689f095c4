"""From a config and the command line's flags to a runner."""

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from gleam_mm.checkpoint import ADAPTER
from gleam_mm.config.datasets import datasets_in
from gleam_mm.config.keys import DATALOADERS
from gleam_mm.config.nested import dicts_in
from gleam_mm.datasets.sources import Source
from gleam_mm.engine.amp import DeviceAmpOptimWrapper
from gleam_mm.engine.checkpoint_hook import AdapterCheckpointHook
from gleam_mm.engine.checks import (
    check_backbone,
    check_best,
    check_cuda_graph,
    check_head,
    check_metrics,
    check_optimizer,
    check_parts,
    check_schedule,
    check_strategy,
)
from gleam_mm.engine.classes import check_test_data, classes_in, fill_classes
from gleam_mm.engine.dist import init_dist
from gleam_mm.engine.resume import LAST, find_resumable, is_of
from gleam_mm.engine.runner import PETLRunner
from gleam_mm.machine import cores
from gleam_mm.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
    RUNNERS,
    TRANSFORMS,
)

_REPLACING = (
    *(DATASETS, TRANSFORMS, HOOKS, LOOPS),
    *(OPTIM_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS),
)
"""The registries with components of ours under the names of MMEngine's and MMPretrain's."""

TRAINING_KEYS = (
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'val_dataloader',
    'val_cfg',
    'val_evaluator',
)


_KEPT = ('pipeline', 'test_mode')
"""What a dataset's config has whatever its source is."""


def use_source(cfg: Config, source: Source, options: Mapping[str, Any]) -> None:
    """Takes the splits of a source in the place of the config's datasets.

    Args:
        cfg: The whole config; changed in place.
        source: What :func:`~gleam_mm.datasets.sources.source_of` has found.
        options: The overrides that the config was loaded with; those of datasets are made again.

    Raises:
        ValueError: The config has no dataloader for a split, whose pipeline the source would take.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            raise ValueError(
                f'the config has no {split}_dataloader for data that are told by their path: take '
                'a recipe such as vit-b_gleam-l_folder'
            )
        kept = {key: loader.dataset[key] for key in _KEPT if key in loader.dataset}
        loader.dataset = {**getattr(source, split), **kept}
    for key, value in options.items():
        if key in DATALOADERS and 'dataset' in (value or {}):
            key, value = f'{key}.dataset', value['dataset']
        if '_dataloader.dataset.' in f'{key}.':
            cfg.merge_from_dict({key: deepcopy(value)})


def set_work_dir(cfg: Config, work_dir: str | None, name: str | None = None) -> None:
    """Sets where a run writes: the given folder, the config's, or ``work_dirs/<name>``.

    Args:
        cfg: The whole config; changed in place.
        work_dir: The folder that the user names, or None.
        name: What the run is called; by default the config's name.

    Raises:
        NotADirectoryError: It is a file, or would lie below one.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / (name or Path(cfg.filename).stem))
    folder = Path(cfg.work_dir)
    for path in (folder, *folder.parents):
        if path.is_file():
            raise NotADirectoryError(
                f'{path} is a file: name a folder to write to (--work-dir, work_dir=)'
            )


def set_training_dir(
    cfg: Config, work_dir: str | None, resume: str | None, name: str | None = None
) -> str | None:
    """Sets where a training writes, so that it does not replace another one.

    Where the default folder has a training already, a new one goes beside it, into
    ``work_dirs/<name>-2`` and so on; one that is resumed by ``auto`` is the last of these, and one
    that goes on from a named checkpoint the one that this is of, or a new one.

    Args:
        cfg: The whole config; changed in place.
        work_dir: The folder that the user names, or None.
        resume: As of :func:`set_resume`.
        name: As of :func:`set_work_dir`.

    Returns:
        What to tell the user, or None.

    Raises:
        FileExistsError: The user or the config names a folder that has a training already, which
            is not the one that is resumed.
    """
    named = work_dir is not None or cfg.get('work_dir') is not None
    set_work_dir(cfg, work_dir, name)
    first = Path(cfg.work_dir)
    if named:
        if _has_training(first) and not _goes_on(first, resume):
            other = '' if resume is None else f' which {resume} is not of,'
            raise FileExistsError(
                f'{first}: has a training already,{other} which another one would replace: '
                'go on with it by --resume, or name another folder (--work-dir, work_dir=)'
            )
        return None
    numbered = (first.with_name(f'{first.name}-{number}') for number in itertools.count(2))
    used = list(itertools.takewhile(_has_training, itertools.chain([first], numbered)))
    if not used:
        return None
    its_own = [folder for folder in used if _goes_on(folder, resume)]
    if its_own:
        cfg.work_dir = str(its_own[-1])
        return None
    free = first.with_name(f'{first.name}-{len(used) + 1}')
    cfg.work_dir = str(free)
    return f'{used[-1]} has a training already: this one goes to {free}'


def _goes_on(folder: Path, resume: str | None) -> bool:
    """Whether a run that resumes so goes on with the training that a folder has."""
    return resume in ('', 'auto') or (resume is not None and is_of(resume, folder))


def _has_training(folder: Path) -> bool:
    """Whether a training has left anything in a folder that another one would replace."""
    return any(next(folder.glob(pattern), None) for pattern in ('*.pth', ADAPTER, LAST))


def set_dataloader_defaults(
    cfg: Config, pin_memory: bool = True, persistent_workers: bool = True
) -> None:
    """Gives dataloaders what MMPretrain's tools give them, unless the config says otherwise.

    Of the workers that a config asks for, each needs a core: there are no more than this process
    may use.

    Args:
        cfg: The whole config; changed in place.
        pin_memory: False switches pinned memory off even where the config has it.
        persistent_workers: The same for workers that live on between epochs.
    """
    for name in DATALOADERS:
        dataloader = cfg.get(name)
        if dataloader is None:
            continue
        if 'num_workers' in dataloader:
            dataloader.num_workers = min(dataloader.num_workers, cores())
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


def use_own_components(cfg: Config) -> None:
    """Takes our components where a new-style config names the classes of those that they replace.

    By name they are found anyway: ours are registered under the same names, nearer by.
    """
    replaced = {}
    for registry in _REPLACING:
        registry.import_from_location()
        for name, ours in registry.module_dict.items():
            above = registry.parent
            while above is not None:
                if name in above.module_dict:
                    replaced[above.module_dict[name]] = ours
                above = above.parent
    for _, part in dicts_in(cfg._cfg_dict):
        kind = part.get('type')
        if isinstance(kind, type) and kind in replaced:
            ours = replaced[kind]  # by its import path, which can be written down
            part['type'] = f'{ours.__module__}.{ours.__qualname__}'


def use_amp(cfg: Config) -> None:
    """Switches automatic mixed precision on: with a scaled loss on GPUs, bfloat16 on the CPU."""
    name = DeviceAmpOptimWrapper
    cfg.optim_wrapper.type = f'{name.__module__}.{name.__qualname__}'  # whatever its scope is
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_test_time_augmentation(cfg: Config) -> None:
    """Makes a test average the scores of several augmented images of each picture.

    Those are what ``tta_pipeline`` of the config says, or the picture and its mirror image; their
    scores are merged by ``tta_model``, by default their mean.

    Raises:
        ValueError: No dataset of the test has a pipeline.
    """
    datasets = [d for d in datasets_in(cfg.test_dataloader.dataset) if d.get('pipeline')]
    if not datasets:
        raise ValueError('--tta: no dataset of test_dataloader has a pipeline to augment')
    for dataset in datasets:
        dataset.pipeline = deepcopy(cfg.get('tta_pipeline')) or _mirrored(dataset.pipeline)
    merged = cfg.get('tta_model') or ConfigDict(type='mmpretrain.AverageClsScoreTTA')
    hook = dict(type='PrepareTTAHook', tta_cfg=merged)  # which wraps the model behind its loading
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), hook]


def _mirrored(pipeline: Sequence[Any]) -> list[Any]:
    """A pipeline that ends with an image and its mirror image, each packed by its last step."""
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    return [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])]


def draw_predictions(
    cfg: Config, folder: str | None, show: bool, interval: int, seconds: float
) -> None:
    """Makes a test draw its predictions.

    Args:
        cfg: The whole config; changed in place.
        folder: Where pictures are written, or None.
        show: Whether they are shown in a window.
        interval: Every how many pictures one is drawn.
        seconds: How long a window stays.

    Raises:
        ValueError: There is no screen to show windows on.
    """
    desktop = sys.platform in ('darwin', 'win32') or {'DISPLAY', 'WAYLAND_DISPLAY'} & {*os.environ}
    if show and not desktop:
        raise ValueError('--show: there is no display here; --show-dir FOLDER writes the pictures')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.get('visualization') or ConfigDict(type='VisualizationHook')
    hook.update(enable=True, show=show, out_dir=folder, interval=interval, wait_time=seconds)
    hooks['visualization'] = hook
    if cfg.get('visualizer') is None:
        cfg.visualizer = ConfigDict(type='UniversalVisualizer')


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


def load_best(runner: Runner) -> None:
    """Puts the best weights by validation in the place of the last; they become the adapter.

    Raises:
        UserError: There are none.
    """
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, AdapterCheckpointHook))
    runner.logger.info(f'Going on with the best checkpoint, {hook.load_best(runner)}')


def build_training(
    cfg: Config,
    work_dir: str | None = None,
    resume: str | None = None,
    launcher: str = 'none',
    best: bool = False,
    pin_memory: bool = True,
    persistent_workers: bool = True,
    name: str | None = None,
) -> Runner:
    """Builds the runner of a training, with everything looked at that may be wrong with it.

    Args:
        cfg: The whole config; changed in place.
        work_dir: The folder that the user names, or None.
        resume: As of :func:`set_resume`.
        launcher: As of :func:`build_runner`.
        best: Whether the training is to end with the best weights by validation.
        pin_memory: As of :func:`set_dataloader_defaults`.
        persistent_workers: As of :func:`set_dataloader_defaults`.
        name: As of :func:`set_work_dir`.

    Raises:
        FileExistsError: Its folder has a training already.
        FileNotFoundError: Data, or what to resume from, are not there.
        ValueError: Parts of the config do not fit each other.
    """
    told = set_training_dir(cfg, work_dir, resume, name)
    set_dataloader_defaults(cfg, pin_memory, persistent_workers)
    check_schedule(cfg)
    if best:
        check_best(cfg)
    check_backbone(cfg)
    set_resume(cfg, resume)
    runner = build_runner(cfg, launcher)
    check_test_data(runner)
    if told:
        runner.logger.warning(told)
    if resume == 'auto' and not cfg.resume:
        runner.logger.warning(
            f'no checkpoint in {cfg.work_dir} to resume: starting at the beginning'
        )
    return runner


@contextmanager
def naming_data_root() -> Iterator[None]:
    """Within it, an error about a file of a dataset says how another place is named."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename is None:  # the dataset itself says what to do
            raise
        raise FileNotFoundError(
            f'{error.filename}: no such file or folder; set `data_root` of the datasets, such as '
            '--cfg-options train_dataloader.dataset.data_root=PATH'
        ) from error


def build_runner(cfg: Config, launcher: str, test_only: bool = False) -> Runner:
    """Builds the runner of a config, in each process of a distributed run.

    Args:
        cfg: The whole config; changed in place. The size of the head is filled in where it is None,
            and the names of classes in folders.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        test_only: Takes out what only training needs.

    Raises:
        FileNotFoundError: The data are not where the config says.
        ValueError: Parts of the config do not fit each other.
    """
    cfg.launcher = launcher
    use_own_components(cfg)
    check_head(cfg)
    if not test_only:
        check_parts(cfg)
        check_optimizer(cfg)
        check_cuda_graph(cfg)
    check_strategy(cfg)
    init_dist(cfg)
    with naming_data_root():
        fill_classes(cfg, classes_in(cfg.get('load_from')) if test_only else None)
    if test_only:
        for key in TRAINING_KEYS:
            cfg[key] = None
        cfg.model.pop('teacher', None)
    check_metrics(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else PETLRunner.from_cfg(cfg)
