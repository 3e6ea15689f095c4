"""The schedule: how long it is, how it warms up, and whether the rate is one that trains."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.doctor.findings import Findings
from gleam_mm.engine import checks

HIGHEST_RATES = {
    **dict.fromkeys(('adapter', 'adaptformer', 'bitfit', 'convpass', 'ia3', 'linear'), 0.03),
    **dict.fromkeys(('loha', 'lokr', 'ssf', 'vera', 'vpt-deep', 'vpt-shallow'), 0.03),
    **dict.fromkeys(('dora', 'fact', 'fact-tk', 'gleam-l', 'lora', 'oft', 'repadapter'), 0.01),
    **dict.fromkeys(('slora', 'vblora'), 0.01),
    'randlora': 0.003,
    'full': 0.001,
}
"""Preset -> the highest rate that trains it about as well as its best.

Of 0.003, 0.01 and 0.03, it is within five points of the best on val200 of two tasks of MiniVTAB at
batch 32: benchmarks/minivtab/results.csv, study minivtab-rates. Full tuning's is of docs/digits.md.
"""

_LOWEST_RATE = 1e-4
"""A tenth of what most public codes have."""

_FEW_STEPS = 100


def check(cfg: Config, findings: Findings, images: int | None) -> None:
    """Examines the schedule of a config.

    Args:
        cfg: The whole config.
        findings: Where findings go.
        images: How many images are trained on, where that is known.
    """
    with findings.gathered('schedule'):
        checks.check_schedule(cfg)
    with findings.gathered('optimizer'):
        checks.check_optimizer(cfg)
        _check_rate(cfg, findings)
    if images is None:
        return
    each = _check_batches(cfg, findings, images)
    training = cfg.get('train_cfg') or {}
    steps = training.get('max_iters') or (training.get('max_epochs') or 0) * each
    if not steps:
        return
    findings.ok('schedule', f'{steps:,} steps, {each:,} an epoch')
    if steps < _FEW_STEPS:
        findings.warning(
            'schedule',
            f'{steps} steps are few for anything to be learned',
            'a larger train_cfg.max_epochs, or a smaller train_dataloader.batch_size',
        )
    _check_warm_up(cfg, findings, steps, each)


def _check_batches(cfg: Config, findings: Findings, images: int) -> int:
    """Tells of batches that do not fit the data, and how many there are in an epoch."""
    loader = cfg.train_dataloader
    size, drops = loader.get('batch_size', 1), loader.get('drop_last', False)
    if size > images:
        told = f'train_dataloader.batch_size={size} is more than the {images} images'
        change = f'train_dataloader.batch_size={max(1, images // 4)}'
        if drops:
            findings.error('schedule', f'{told}, and drop_last leaves no batch', change)
        else:
            findings.warning('schedule', f'{told}: every step sees all of them', change)
    elif drops and images % size:
        findings.warning(
            'schedule',
            f'drop_last leaves {images % size} of {images} images out of each epoch',
            'train_dataloader.drop_last=False',
        )
    return images // size if drops else -(-images // size)


def _check_warm_up(cfg: Config, findings: Findings, steps: int, each: int) -> None:
    for index, part in enumerate(_parts(cfg.get('param_scheduler'))):
        if str(part.get('type')).rpartition('.')[2] != 'LinearLR':
            continue
        if (end := part.get('end')) is None:
            continue
        end *= each if part.get('by_epoch', True) else 1
        if end >= steps:
            findings.error(
                'schedule',
                f'the warm-up of {end:,} steps is as long as the training: it never gets to its '
                'rate',
                f'param_scheduler.{index}.end={max(1, round((part["end"]) * steps / end / 10))}',
            )
        elif end > steps / 3:
            findings.warning('schedule', f'{end:,} of {steps:,} steps warm up', 'a tenth is usual')


def _check_rate(cfg: Config, findings: Findings) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer') or {}
    rate, petl = optimizer.get('lr'), cfg.model.get('petl')
    if rate is None or not isinstance(petl, Mapping):
        return
    highest = _highest_rate(petl)
    if highest is not None and rate > highest:
        findings.warning(
            'schedule',
            f'optim_wrapper.optimizer.lr={rate:g} is above every rate that trained '
            f'{petl["type"]} well on MiniVTAB',
            f'optim_wrapper.optimizer.lr={highest:g} or less',
        )
    elif rate < _LOWEST_RATE and petl['type'] != 'FullTuning':
        findings.warning(
            'schedule',
            f'optim_wrapper.optimizer.lr={rate:g} is low for so few parameters',
            'optim_wrapper.optimizer.lr=1e-3',
        )
    else:
        told = f', at most {highest:g} by the record' if highest is not None else ''
        findings.ok('schedule', f'rate {rate:g}{told}')


def _highest_rate(petl: Mapping[str, Any]) -> float | None:
    return next(
        (
            rate
            for name, rate in HIGHEST_RATES.items()
            if _kind(recipes.method_preset(name)) == _kind(petl)
        ),
        None,
    )


def _kind(petl: Mapping[str, Any]) -> tuple[Any, Any]:
    """The class of a method, and the tuner where it is one of HF PEFT's."""
    config = petl.get('config')
    return petl.get('type'), config.get('peft_type') if isinstance(config, Mapping) else None


def _parts(schedulers: Any) -> Sequence[Mapping[str, Any]]:
    return [schedulers] if isinstance(schedulers, Mapping) else schedulers or []
