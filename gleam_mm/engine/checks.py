"""What a config must not ask for, looked at before anything is built."""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from mmpretrain.evaluation import Accuracy, MultiLabelMetric
from torch import nn
from torch.utils.data import DataLoader

from gleam_mm.arguments import argument_names, takes_any
from gleam_mm.engine import checkpoint_hook
from gleam_mm.engine.dist import is_sharded
from gleam_mm.messages import hint_at
from gleam_mm.registry import (
    HOOKS,
    LOOPS,
    METRICS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    scope_of,
)

_ENVIRONMENT = ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')
"""What MMEngine's runner reads of ``env_cfg``."""

_GIVEN = {'params', 'optimizer', 'runner', 'dataloader', 'evaluator'}
"""Arguments that no config has: MMEngine gives them."""

_CLIPPING: dict[str, Callable[..., Any]] = {
    'norm': nn.utils.clip_grad_norm_,
    'value': nn.utils.clip_grad_value_,
}
"""What ``optim_wrapper.clip_grad`` calls, by its ``type``."""

_NO_STRATEGIES = (
    "MMEngine's strategies neither write adapters nor resume a training where it stopped; take "
    'strategy=fsdp or strategy=deepspeed on the command line, or that file of '
    'configs/_base_/strategies among the _base_ of the config, which shares the frozen weights out'
)


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


def check_best(cfg: Config) -> None:
    """Refuses to end with the best checkpoint of a training that keeps none.

    Raises:
        ValueError: It does not validate, or does not keep the best.
    """
    hooks = {'checkpoint': checkpoint_hook.DEFAULT, **(cfg.get('default_hooks') or {})}
    saves = hooks['checkpoint'] or {}
    if cfg.get('val_dataloader') is None or not saves.get('save_best'):
        raise ValueError(
            '--best: the training keeps no best checkpoint; it needs a val_dataloader, and '
            "default_hooks.checkpoint.save_best='auto'"
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


def check_optimizer(cfg: Config) -> None:
    """Refuses an optimizer that there is not, and options that it or its wrapper does not have.

    MMEngine says that None is not callable of the former, and of the latter nothing before the
    model is built, or before the first step.

    Raises:
        ValueError: ``optim_wrapper.optimizer.type`` or an option is unknown, of which the message
            names the nearest; or ``optim_wrapper.clip_grad`` lacks one.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer') or {}
    kind = optimizer.get('type')
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        known, registry = set(), OPTIMIZERS
        while registry is not None:
            known |= registry.module_dict.keys()
            registry = registry.parent
        raise ValueError(
            f'optim_wrapper.optimizer.type={kind!r}: there is no such optimizer'
            f'{hint_at(kind, known)}'
        )
    _check_options(optimizer, OPTIMIZERS, 'optim_wrapper.optimizer')
    if 'constructor' not in wrapper:  # which may take out options of its own
        named = {'type': 'OptimWrapper', **wrapper}
        _check_options(named, OPTIM_WRAPPERS, 'optim_wrapper', {'optimizer', 'paramwise_cfg'})
    _check_clipping(wrapper.get('clip_grad'))


def _check_clipping(clipping: Any) -> None:
    function = _CLIPPING.get(clipping.get('type', 'norm')) if isinstance(clipping, dict) else None
    if function is None:  # MMEngine says so
        return
    _, *arguments = inspect.signature(function).parameters.values()  # without the parameters
    key, known = 'optim_wrapper.clip_grad', [argument.name for argument in arguments]
    _refuse_unknown(clipping, known, key, function.__name__)
    for argument in arguments:
        if argument.default is argument.empty and argument.name not in clipping:
            raise ValueError(f'{key}: {function.__name__} needs {argument.name}')


class Part(NamedTuple):
    """A part of a config that MMEngine's runner builds.

    Attributes:
        key: Where it stands in the config.
        options: What the config says of it, with its ``type``.
        registry: Where that is registered.
        others: Options that are taken out before it is built.
    """

    key: str
    options: Mapping[str, Any]
    registry: Registry
    others: Collection[str] = ()


def parts_of(cfg: Config) -> Iterator[Part]:
    """The loops, loaders, hooks, schedulers and metrics of a config."""
    of_epochs = (cfg.get('train_cfg') or {}).get('by_epoch', True)
    training = 'EpochBasedTrainLoop' if of_epochs else 'IterBasedTrainLoop'
    for split, kind in (('train', training), ('val', 'ValLoop'), ('test', 'TestLoop')):
        loop, loader = cfg.get(f'{split}_cfg'), cfg.get(f'{split}_dataloader')
        if isinstance(loop, dict):
            yield Part(f'{split}_cfg', {'type': kind, **loop}, LOOPS, ('by_epoch',))
        if isinstance(loader, dict):
            named = {'type': DataLoader, **loader}
            yield Part(f'{split}_dataloader', named, LOOPS, ('num_batch_per_epoch',))
    for key, registry, others in (
        ('default_hooks', HOOKS, ('priority',)),
        ('custom_hooks', HOOKS, ('priority',)),
        ('param_scheduler', PARAM_SCHEDULERS, ('convert_to_iter_based',)),
        ('val_evaluator', METRICS, ()),
        ('test_evaluator', METRICS, ()),
    ):
        found = cfg.get(key) or []
        if isinstance(found, dict) and key != 'default_hooks':
            yield Part(key, found, registry, others)
            continue
        for name, part in found.items() if isinstance(found, dict) else enumerate(found):
            if isinstance(part, dict):  # not a hook that is switched off, or an object
                yield Part(f'{key}.{name}', part, registry, others)


def check_part(part: Part) -> None:
    """Refuses a part that there is not, and options that it does not have.

    MMEngine tells of most of them when it builds the part, and of a checkpoint's at the first one.

    Raises:
        ValueError: Its type or an option is unknown; the message names the nearest option.
    """
    kind = part.options.get('type')
    if isinstance(kind, str) and part.registry.get(kind) is None:
        raise ValueError(f'{part.key}.type={kind!r}: there is no such component')
    _check_options(part.options, part.registry, part.key, part.others)


def check_metrics(cfg: Config) -> None:
    """Refuses metrics of more classes than the head tells.

    MMPretrain notices at the end of the first validation, or of the test after the training.

    Raises:
        ValueError: The ``topk`` of an evaluator is above ``model.head.num_classes``.
    """
    number = (cfg.model.get('head') or {}).get('num_classes')
    if number is None:
        return
    for key, metric, topk in metrics_of(cfg):
        if topk is None or not _ranks_classes(metric):
            continue
        if max(topk if isinstance(topk, Sequence) else [topk]) > number:
            raise ValueError(
                f'{key}.topk={topk}: there are {number} classes; choose {number} at most, '
                'such as topk=1'
            )


def metrics_of(cfg: Config) -> list[tuple[str, Any, Any]]:
    """The metrics of a config: the key of each, what its type stands for, and its ``topk``."""
    found = []
    with scope_of(cfg):
        for part in parts_of(cfg):
            if part.registry is METRICS:
                kind = part.options.get('type')
                metric = METRICS.get(kind) if isinstance(kind, str) else kind
                found.append((part.key, metric, part.options.get('topk')))
    return found


def _ranks_classes(metric: Any) -> bool:
    return inspect.isclass(metric) and issubclass(metric, Accuracy | MultiLabelMetric)


def check_environment(cfg: Config) -> None:
    """Refuses options of ``env_cfg`` that MMEngine would pass over.

    Raises:
        ValueError: There is one; the message names the nearest.
    """
    for name in cfg.get('env_cfg') or {}:
        if name not in _ENVIRONMENT:
            raise ValueError(
                f'env_cfg.{name}: there is no such option{hint_at(name, _ENVIRONMENT)}; it has '
                f'{", ".join(_ENVIRONMENT)}'
            )


def check_parts(cfg: Config) -> None:
    """Refuses what any part of a config, or its environment, does not have.

    Raises:
        ValueError: As of :func:`check_part` and :func:`check_environment`.
    """
    with scope_of(cfg):
        for part in parts_of(cfg):
            check_part(part)
    check_environment(cfg)


def _check_options(
    config: Mapping[str, Any], registry: Registry, key: str, others: Iterable[str] = ()
) -> None:
    """Refuses options that a class does not have.

    One that takes any is not asked, nor one that chooses by them what is built.
    """
    kind = config.get('type')
    component = registry.get(kind) if isinstance(kind, str) else kind
    if not inspect.isclass(component) or '__new__' in vars(component):
        return
    if takes_any(component) and not issubclass(component, CheckpointHook):  # whose are of no use
        return
    known = {*(argument_names(component) - _GIVEN), *others}
    _refuse_unknown(config, known, key, component.__name__)


def _refuse_unknown(names: Iterable[str], known: Collection[str], key: str, whose: str) -> None:
    for name in names:
        if name not in known and name not in ('type', '_scope_'):
            raise ValueError(
                f'{key}.{name}: {whose} has no such option{hint_at(name, known)}; it has '
                f'{", ".join(sorted(known))}'
            )


def check_strategy(cfg: Config) -> None:
    """Refuses ways to distribute a training that would not end with ours, and says which does.

    Raises:
        ValueError: The config asks for MMEngine's ``FlexibleRunner`` or for its FSDP; or shards
            frozen weights and asks for what needs them whole.
    """
    runner = cfg.get('runner_type')
    wrapper = (cfg.get('model_wrapper_cfg') or {}).get('type')
    for key, kind in (('runner_type', runner), ('model_wrapper_cfg.type', wrapper)):
        if 'FlexibleRunner' in str(kind) or 'MMFullyShardedDataParallel' in str(kind):
            raise ValueError(f'{key}={kind}: {_NO_STRATEGIES}')
    if cfg.get('strategy') is not None:
        raise ValueError(f'strategy={cfg.strategy}: {_NO_STRATEGIES}')
    if not is_sharded(cfg.get('model_wrapper_cfg')):
        return
    if any('EMAHook' in str(hook.get('type')) for hook in _hooks(cfg)):
        raise ValueError(
            f'EMAHook copies the whole model, and {wrapper} shares its frozen weights out: do '
            'without one of them'
        )
    if any(hook.get('cache_features') for hook in _hooks(cfg)):
        raise ValueError(
            f'cache_features computes blocks one by one, which {wrapper} has shared out: do '
            'without one of them'
        )
    if cfg.get('compile'):
        raise ValueError(f'compile=True has not been tried with {wrapper}: do without one of them')


def check_cuda_graph(cfg: Config) -> None:
    """Refuses to record the steps of a training where that cannot be, or would record another one.

    Raises:
        ValueError: ``cuda_graph`` is set, and there is no GPU, no method, or something else that
            decides how the backbone is called.
    """
    asked = cfg.get('cuda_graph')
    if asked not in (None, True, False):
        raise ValueError(f'cuda_graph={asked!r}: choose True or False')
    if not asked:
        return
    if cfg.model.get('petl') is None:
        raise ValueError('cuda_graph=True records an adapted backbone, and model.petl is missing')
    if not torch.cuda.is_available():
        raise ValueError('cuda_graph=True: torch sees no GPU here; do without it')
    others = {
        'several processes, with which it has not been tried': cfg.get('launcher') != 'none',
        'compile': cfg.get('compile'),
        'cache_features': any(hook.get('cache_features') for hook in _hooks(cfg)),
    }
    for name, there in others.items():
        if there:
            raise ValueError(f'cuda_graph=True does not go with {name}: do without one of them')


def _hooks(cfg: Config) -> Iterator[Mapping[str, Any]]:
    """The configs of all hooks."""
    for hook in (*(cfg.get('custom_hooks') or ()), *(cfg.get('default_hooks') or {}).values()):
        if isinstance(hook, dict):
            yield hook
