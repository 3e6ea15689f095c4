"""From a sweep's file and the command line's flags to the settings of a sweep, checked."""

import contextlib
import fnmatch
import inspect
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmpretrain.evaluation import Accuracy

from gleam_mm.arguments import argument_names
from gleam_mm.checkpoint import fingerprint
from gleam_mm.config import recipes
from gleam_mm.engine import checks, fill_num_classes
from gleam_mm.errors import SETUP_ERRORS, UserError, describe
from gleam_mm.messages import hint_at, shown
from gleam_mm.models import params
from gleam_mm.registry import DATASETS, MODELS, scope_of
from gleam_mm.shapes import COUNT, POSITIVE, TEXT, TRUTH, Shape, list_of
from gleam_mm.sweep import protocol, training
from gleam_mm.sweep.groups import expand
from gleam_mm.sweep.plan import Job, Sweep, Variant, option_key
from gleam_mm.sweep.schema import OPTIONS

FOLDER = 'sweeps'  # in the configs folder

_TEXT_OR_TEXTS = Shape(
    'a name or a list of names',
    lambda value: isinstance(value, str) or list_of(TEXT).fits(value),
)
_SEEDS = Shape(
    'a number of seeds, at least 1, or a list of seeds, each once, none below 0',
    lambda value: (
        POSITIVE.fits(value) or (list_of(COUNT).fits(value) and 0 < len(value) == len(set(value)))
    ),
)
_BY_NAME = Shape(
    'a mapping, by names in quotes',
    lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
)
_SHAPES = {
    'name': TEXT,
    'backbone': TEXT,
    'methods': _TEXT_OR_TEXTS,
    'datasets': _TEXT_OR_TEXTS,
    'variants': _BY_NAME,
    'grid': _BY_NAME,
    'grids': _BY_NAME,
    'seeds': _SEEDS,
    'trial_seeds': POSITIVE,
    'final': TRUTH,
    'options': OPTIONS,
    'heartbeat': POSITIVE,
}
KEYS = tuple(_SHAPES)

_KNOWN = ('gleam_mm', 'mmpretrain')  # whose metrics give no accuracy but by Accuracy

# Recipes and folders are split at underscores.
_VARIANT_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9.=-]*')
_IN_FULL = 'other keys of the config are named in full, such as optim_wrapper.optimizer.lr'


def read_file(file: str) -> dict[str, Any]:
    """Reads the settings of a sweep from a config file.

    Args:
        file: A path, or the name of a file in ``configs/sweeps``, as
            :func:`~gleam_mm.config.recipes.name_in_configs` tells it.

    Raises:
        RecipeError: It is a path of no file, which does not lie in a folder ``configs``.
        UserError: There is no such file, or it is broken or has a key that no sweep has.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        folder = recipes.config_root() / FOLDER
        name = recipes.name_in_configs(file, lambda name: (folder / f'{name}.py').is_file())
        path = folder / f'{name}.py'
        if not path.is_file():
            there = sorted(found.stem for found in folder.glob('*.py'))
            listed = ', '.join(stem for stem in there if not stem.startswith('_'))
            raise UserError(f'{file}: no such file, and no sweep of {folder} ({listed})')
    try:
        settings = Config.fromfile(path).to_dict()
    except Exception as error:  # a config is a program: anything can happen in it
        raise UserError(f'{path}: {type(error).__name__}: {error}') from error
    if unknown := sorted(settings.keys() - set(KEYS)):
        raise UserError(f'{path}: unknown key {unknown[0]!r}; a sweep has: {", ".join(KEYS)}')
    return {'name': path.stem, **settings}


def make_sweep(settings: Mapping[str, Any]) -> tuple[str, Sweep]:
    """Makes a sweep of settings: expands groups, and gives each method the part of the grid it has.

    Args:
        settings: By the names in :data:`KEYS`. ``seeds`` is a number of seeds or a list of them.

    Returns:
        The sweep's name, which by default is made of the backbone and the datasets, and the sweep.

    Raises:
        UserError: Something is missing, unknown or does not fit.
    """
    for key, value in settings.items():
        if value is not None and not _SHAPES[key].fits(value):
            raise UserError(f'{key}={shown(value)}: expected {_SHAPES[key].what}')
    known, own = recipes.families(), settings.get('grids') or {}
    variants = _variants(settings.get('variants') or {}, list(known['methods']))
    for key in ('backbone', 'methods', 'datasets'):
        if not settings.get(key):
            raise UserError(f'--{key}: give it as a flag or in the file of the sweep')
    try:
        (backbone,) = expand([settings['backbone']], list(known['backbones']), 'backbone')
        names = list(dict.fromkeys([*known['methods'], *variants]))
        methods = expand(_names(settings['methods']), names, 'method')
        datasets = expand(_names(settings['datasets']), list(known['datasets']), 'dataset')
        for pattern in own:
            expand([pattern], names, 'method')
    except ValueError as error:
        raise UserError(str(error)) from error
    _check_patterns(own, names, variants)
    sweep = Sweep(
        backbone=backbone,
        methods=tuple(methods),
        datasets=tuple(datasets),
        seeds=_seeds(settings.get('seeds', 1)),
        trial_seeds=settings.get('trial_seeds', 1),
        options=dict(settings.get('options') or {}),
        # Only those that it has: files of several sweeps may share more.
        variants={name: variants[name] for name in methods if name in variants},
        final=settings.get('final', True),
        heartbeat=settings.get('heartbeat', 20),
    )
    sweep = replace(sweep, grid=_grids(sweep, settings.get('grid') or {}, own))
    if sweep.trial_seeds > len(sweep.seeds):
        raise UserError(
            f'trial_seeds={sweep.trial_seeds}: a sweep of {len(sweep.seeds)} seeds has no more'
        )
    if not sweep.final and not sweep.grid:
        raise UserError('final=False: without a grid and a final phase there is nothing to train')
    name = settings.get('name') or f'{backbone}_{"-".join(_names(settings["datasets"]))}'
    return name.replace('*', '').replace('/', '-'), sweep


def read_grid(words: Mapping[str, Any]) -> dict[str, list]:
    """Makes a grid of ``alpha=0.1,1,10 top_k=1 sites=[[qkv],[qkv,fc1]]``, as MMEngine reads it.

    Raises:
        UserError: A value is empty.
    """
    grid = {}
    for name, values in words.items():
        grid[name] = list(values) if isinstance(values, list | tuple) else [values]
        if '' in grid[name]:
            raise UserError(f'--grid {name}: a value is empty; expected {name}=VALUE,VALUE')
    return grid


def parse_seeds(text: str) -> int | list[int]:
    """Reads a number of seeds, or the seeds as ``0,1,7``.

    Raises:
        UserError: It is neither.
    """
    try:
        return [int(seed) for seed in text.split(',')] if ',' in text else int(text)
    except ValueError as error:
        raise UserError(f'--seeds {text}: give a number of seeds, or seeds: 0,1,7') from error


def parse_gpus(text: str | None) -> list[str]:
    """Reads GPUs as ``0,1``: numbers among those that ``CUDA_VISIBLE_DEVICES`` lists, if it does.

    Returns:
        What ``CUDA_VISIBLE_DEVICES`` is to be for each of them.

    Raises:
        UserError: There is no such GPU.
    """
    if text is None:
        return []
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    devices = visible.split(',') if visible else [str(i) for i in range(torch.cuda.device_count())]
    try:
        return [devices[int(number)] for number in text.split(',')]
    except (ValueError, IndexError) as error:
        raise UserError(
            f'--gpus {text}: give numbers such as 0,1; there are {len(devices)} GPUs here'
        ) from error


def check(sweep: Sweep) -> None:
    """Finds before the first training what would make every training fail.

    Every method is composed for every dataset, and for the first one with every point of its grid,
    of which each model is built. Every training and validation list is read (the test split stays
    closed), and one model is built with its weights.

    Raises:
        UserError: Something is wrong.
    """
    first = next(job for pair in sweep.pairs() for job in sweep.jobs(*pair))
    built: list[ConfigDict] = []
    for method, dataset in sweep.pairs():
        jobs = [job for job in sweep.jobs(method, dataset) if job.seed == first.seed]
        ends = {job.phase: job for job in jobs}
        for job in jobs if dataset == first.dataset else ends.values():
            with _told(job):
                cfg, splits = training.make_config(sweep, job)
                checks.check_schedule(cfg)
                checks.check_optimizer(cfg)
                checks.check_parts(cfg)
                _check_metric(cfg)
                if dataset == first.dataset and cfg.model not in built:
                    built.append(cfg.model)
                    with _untested(cfg, splits):
                        params.build_bare(cfg)
            if method == first.method and job is ends[job.phase]:
                _open_lists(cfg, splits)
    cfg, splits = training.make_config(sweep, first)
    with _untested(cfg, splits):
        fill_num_classes(cfg)
        _check_weights(sweep, cfg)


@contextlib.contextmanager
def _told(job: Job) -> Iterator[None]:
    """Says of which training a mistake is."""
    try:
        yield
    except SETUP_ERRORS as error:
        raise UserError(f'{job}: {describe(error)}') from error


def _check_metric(cfg: Config) -> None:
    """Refuses an evaluation without the accuracy that is noted at the end of each training."""
    kinds = []
    for _, metric, topk in checks.metrics_of(cfg):
        if not inspect.isclass(metric) or metric.__module__.split('.')[0] not in _KNOWN:
            return  # one of the user's own, which may give it
        ranks = topk if isinstance(topk, Sequence) else [1 if topk is None else topk]
        if issubclass(metric, Accuracy) and 1 in ranks:
            return
        kinds.append(metric.__name__)
    raise ValueError(
        f'the evaluation ({", ".join(kinds) or "none"}) gives no {training.METRIC}, which a sweep '
        "goes by: set test_evaluator, and val_evaluator if there is one, to dict(type='Accuracy', "
        'topk=1)'
    )


def _check_weights(sweep: Sweep, cfg: Config) -> None:
    """Builds the model twice: a backbone that differs has random weights."""
    built = (MODELS.build(deepcopy(cfg.model)).backbone.state_dict() for _ in range(2))
    if len(set(map(fingerprint, built))) > 1:
        raise UserError(
            f'{sweep.backbone}: its weights are random, so that no two trainings would have the '
            'same backbone; give it pretrained ones: '
            "init_cfg=dict(type='Pretrained', checkpoint=...) of model.backbone"
        )


def _open_lists(cfg: Config, splits: protocol.Splits) -> None:
    with _untested(cfg, splits):
        for key in ('train_dataloader', 'val_dataloader'):
            if cfg.get(key) is not None:
                DATASETS.build(cfg[key].dataset)


@contextlib.contextmanager
def _untested(cfg: Config, splits: protocol.Splits) -> Iterator[None]:
    """Within it, parts of a config can be built, and the test split stays closed."""
    with scope_of(cfg), protocol.only(splits.select, splits.validate, splits.final):
        yield


def _variants(settings: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Variant]:
    """Reads all variants of a file; whether methods have their options is checked when used."""
    variants = {}
    for name, options in settings.items():
        if not _VARIANT_NAME.fullmatch(str(name)):
            raise UserError(
                f"variants: {name!r} cannot be a name: use letters, digits, '-', '.' and '='"
            )
        if not isinstance(options, Mapping):
            raise UserError(f'variants.{name}: expected a dict of options, found {options!r}')
        options = dict(options)
        _check_names(f'variants.{name}', options)
        method = options.pop('method', name)
        if method not in methods:
            raise UserError(
                f'variants.{name}: unknown method {method!r}{hint_at(str(method), methods, 3)}; '
                "'method' says which one it is a variant of"
            )
        if name in methods and name != method:
            raise UserError(
                f'variants.{name}: {name} is a method itself; call a variant of {method} otherwise'
            )
        variants[name] = Variant(method, options)
    return variants


def _grids(
    sweep: Sweep, grid: Mapping[str, Sequence], own: Mapping[str, Mapping[str, Sequence]]
) -> dict[str, dict[str, list]]:
    """The grid of every method: one of its own, or of the shared one the options that it has."""
    _check_grid('grid', grid)
    for pattern, values in own.items():
        if not isinstance(values, Mapping) or not values:
            raise UserError(f'grids.{pattern}: expected a dict of options, found {values!r}')
        _check_grid(f'grids.{pattern}', values)
    known = {}  # a recipe is read once, however many variants its method has
    grids, sharing = {}, []
    for method in sweep.methods:
        variant = sweep.variant(method)
        if variant.method not in known:
            known[variant.method] = _method_options(sweep, method)
        options = known[variant.method]
        for name in variant.options:
            if '.' not in name and name not in options:
                raise UserError(
                    f'variants.{method}.{name}: {variant.method} has no option {name!r}; {_IN_FULL}'
                )
        if (pattern := _pattern_of(method, variant, own)) is None:
            sharing.append(method)
            grids[method] = {
                name: list(values)
                for name, values in grid.items()
                if '.' in name or name in options
            }
            continue
        for name in own[pattern]:
            if '.' not in name and name not in options:
                raise UserError(
                    f'grids.{pattern}.{name}: {method} has no option {name!r}; {_IN_FULL}'
                )
        grids[method] = {name: list(values) for name, values in own[pattern].items()}
    for name in grid if sharing else ():
        if not any(name in grids[method] for method in sharing):
            raise UserError(
                f'grid.{name}: none of {", ".join(sharing)} has an option {name!r}; {_IN_FULL}'
            )
    return {method: found for method, found in grids.items() if found}


def _pattern_of(method: str, variant: Variant, patterns: Collection[str]) -> str | None:
    """A method's very name, or the first pattern that it or what it is a variant of fits."""
    if method in patterns:
        return method
    names = (method, variant.method)
    return next((pattern for pattern in patterns if fnmatch.filter(names, pattern)), None)


def _check_patterns(
    patterns: Collection[str], names: Iterable[str], variants: Mapping[str, Variant]
) -> None:
    """Refuses a pattern that nothing gets its grid by, since others before it fit all of that."""
    used = {_pattern_of(name, variants.get(name, Variant(name)), patterns) for name in names}
    for pattern in patterns:
        if pattern not in used:
            raise UserError(
                f'grids.{pattern}: all that it fits have the grid of another pattern, before it: '
                'the first that fits a method counts, so put the narrower one first'
            )


def _check_names(place: str, options: Mapping[str, Any]) -> None:
    """Refuses what is no name of an option, and two names of one, of which one would count."""
    if not _BY_NAME.fits(options):
        raise UserError(f'{place}={shown(options)}: expected {_BY_NAME.what}')
    keys: dict[str, str] = {}
    for name in options:
        if (other := keys.setdefault(option_key(name), name)) != name:
            raise UserError(f'{place}: {other} and {name} are one and the same; leave one of them')


def _check_grid(place: str, grid: Mapping[str, Sequence]) -> None:
    _check_names(place, grid)
    for name, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise UserError(f'{place}.{name}: expected a list of values, found {values!r}')
        if any(value in list(values)[:index] for index, value in enumerate(values)):
            raise UserError(f'{place}.{name}: a value is there twice: {list(values)}')


def _method_options(sweep: Sweep, method: str) -> set[str]:
    """Names of the options that a method has: those of its recipe, and those of its class."""
    petl = recipes.load(sweep.recipe(method, sweep.datasets[0])).model.petl
    return {*petl, *argument_names(MODELS.get(petl.type))}


def _names(value: str | Iterable[str]) -> list[str]:
    words = [value] if isinstance(value, str) else value
    return [name for word in words for name in word.split(',') if name]


def _seeds(value: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(range(value)) if isinstance(value, int) else tuple(value)
