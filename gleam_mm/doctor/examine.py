"""The examination of a config, from its data to the memory of a step."""

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.doctor import data, model, runtime, schedule
from gleam_mm.doctor.findings import Finding, Findings
from gleam_mm.doctor.memory import forecast, forecasts
from gleam_mm.engine import launch
from gleam_mm.models import PETLClassifier
from gleam_mm.output import tables

ALL = 'all'

_MUCH = 0.8
"""The share of a device's memory from which a forecast is worth a look."""


def examine(
    cfg: Config,
    device: str | torch.device = 'cpu',
    methods: Sequence[str] = (),
    pictures: int = 64,
) -> list[Finding]:
    """Looks for whatever would stop or spoil a training, without training.

    Args:
        cfg: The whole config, as :func:`gleam_mm.config.load` gave it; left as it is.
        device: Where it will be trained; it has to be there.
        methods: Presets whose memory is forecast beside the config's method; ``['all']`` is all.
        pictures: How many pictures of each split are read.

    Returns:
        What was found, in the order of the examination.

    Raises:
        RecipeError: There is no such preset.
        RuntimeError: There is no such device.
    """
    device = torch.device(device)
    torch.empty(0, device=device)  # raises where there is none
    names = list(recipes.families()['methods']) if list(methods) == [ALL] else list(methods)
    for name in names:
        recipes.method_preset(name)
    cfg, findings = deepcopy(cfg), Findings()  # its own copy() shares what is nested
    launch.use_own_components(cfg)
    train, sample = data.check(cfg, findings, pictures)
    built = model.check(cfg, findings)
    schedule.check(cfg, findings, None if train is None else len(train))
    runtime.check(cfg, findings)
    optimizes = cfg.get('optim_wrapper') and 'optimizer' not in findings.failed
    if built is not None and optimizes and cfg.get('train_dataloader'):
        with findings.listening('memory'):
            _check_memory(cfg, built, findings, device, names, sample)
    return list(findings)


def _check_memory(
    cfg: Config,
    built: PETLClassifier,
    findings: Findings,
    device: torch.device,
    names: Sequence[str],
    sample: Any,
) -> None:
    """Forecasts the peak of a step. What a step refuses, as features without pooling, is told."""
    size, batch = None, cfg.train_dataloader.get('batch_size', 1)
    try:
        size = forecast(cfg, built, device, sample)
    except Exception as error:  # whatever the model raises
        findings.error('step', ' '.join(str(error).split()))
    if size is not None:
        there = _memory_of(device)
        told = f'a step of {batch} images takes {tables.size(size)} at its peak'
        if there is not None and size > _MUCH * there:
            add = findings.error if size > there else findings.warning
            add(
                'memory',
                f'{told}, and {device} has {tables.size(there)}',
                f'train_dataloader.batch_size={max(1, batch // 2)} '
                'optim_wrapper.accumulative_counts=2, or --amp',
            )
        else:
            findings.ok('memory', f'{told} on {device}', size)
    for name, found in forecasts(cfg, built, names, device, sample):
        if isinstance(found, int):
            findings.ok('memory', f'{name}: {tables.size(found)}', found)
        else:
            findings.warning('memory', f'{name}: {found}')


def _memory_of(device: torch.device) -> int | None:
    """Bytes of memory that a device has, where that can be told."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[1]
    if device.type == 'cpu' and hasattr(os, 'sysconf'):
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return None
