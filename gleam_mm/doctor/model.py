"""The model: its weights, what they expect, how it pools, and what is known of its method."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import timm
import torch
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.config.statistics import pretrained_statistics
from gleam_mm.doctor.findings import Findings
from gleam_mm.engine import checks
from gleam_mm.errors import describe
from gleam_mm.models import PETLClassifier, build_model, params
from gleam_mm.models.parts import is_pretrained

_CLASSES = 100
"""Of a head whose number of classes the data do not tell, so that the rest can be examined."""

_TIMM = ('TIMMBackbone', 'PooledTIMMBackbone')
_POOLS = {'token': 'cls', 'avg': 'mean'}
"""What timm calls a pooling -> what ``TokenPool`` does."""

_LARGE_ALPHA = 10
"""From here on GLEAM ends at chance: benchmarks/minivtab/RESULTS.md, claim 3."""


def check(cfg: Config, findings: Findings) -> PETLClassifier | None:
    """Examines the model of a config, and returns it; None where none can be built."""
    cfg = deepcopy(cfg)
    for test in (checks.check_head, checks.check_backbone):
        with findings.gathered(test.__name__.removeprefix('check_')):
            test(cfg)
    if cfg.model.get('allow_random_backbone') and not _checkpoint(cfg):
        findings.warning(
            'backbone',
            'its weights are random: what is learned on it is worth no comparison',
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)",
        )
    head = cfg.model.get('head') or {}
    if head.get('num_classes', 0) is None:
        head['num_classes'] = _CLASSES
    model = None
    with findings.listening('model'), findings.gathered('weights'):
        model = build_model(cfg)
    if model is None:
        model = _without_weights(cfg, findings)
    elif checkpoint := _checkpoint(cfg):
        findings.ok('weights', f'{checkpoint}: every weight of the backbone is there')
    if model is None:
        return None
    _check_statistics(cfg, findings)
    _check_pooling(cfg, findings)
    counted = params.count(model)
    share = counted.trainable / max(1, params.size(model.backbone))
    findings.ok(
        'method',
        f'{type(model.petl).__name__}: {counted.trainable:,} parameters, {share:.2%} of the '
        "backbone's",
    )
    _check_method(cfg, findings)
    return model


def _without_weights(cfg: Config, findings: Findings) -> PETLClassifier | None:
    """The same model with random weights, to go on with; or what else is wrong with it."""
    cfg = deepcopy(cfg)  # what else is examined is the config as it was
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.allow_random_backbone = True
    told = findings[-1].text
    with findings.listening('model'):
        try:
            return build_model(cfg)
        except Exception as error:
            text = ' '.join(describe(error).split())
            if text != told:
                findings.error('model', text)
    return None


def _checkpoint(cfg: Config) -> str | None:
    """The file of the backbone's weights, where a config names one."""
    backbone = cfg.model.backbone
    given = backbone.get('init_cfg') or []
    for part in [given] if isinstance(given, dict) else given:
        if is_pretrained(part):
            return str(part['checkpoint'])
    return backbone.get('checkpoint_path') or None


def _check_statistics(cfg: Config, findings: Findings) -> None:
    """Compares how images are normalised with what the weights were trained with."""
    told = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    if told.get('mean') is None:
        findings.warning(
            'images', 'are not normalised', 'data_preprocessor.normalize=imagenet, or half'
        )
        return
    mean, std = [float(x) for x in told['mean']], [float(x) for x in told['std']]
    names = {
        name: numbers
        for name, numbers in recipes.NORMALIZATIONS.items()
        if _close(numbers['mean'], mean) and _close(numbers['std'], std)
    }
    ours = next(iter(names), f'mean {_short(mean)}, std {_short(std)}')
    known = pretrained_statistics(cfg.model.backbone)
    if known is None:
        findings.ok('images', f'normalised by {ours}; what the weights expect is not recorded')
        return
    if _close(known.mean, mean) and _close(known.std, std):
        findings.ok('images', f'normalised by {ours}, as the weights expect by {known.source}')
        return
    theirs = next(
        (
            name
            for name, numbers in recipes.NORMALIZATIONS.items()
            if _close(numbers['mean'], known.mean) and _close(numbers['std'], known.std)
        ),
        None,
    )
    change = (
        f'data_preprocessor.normalize={theirs}'
        if theirs
        else f'data_preprocessor.mean={_short(known.mean)} .std={_short(known.std)}'
    )
    findings.warning(
        'images',
        f'normalised by {ours}, but the weights were trained with mean {_short(known.mean)} and '
        f'std {_short(known.std)} by {known.source}',
        change,
    )


def _close(ours: Any, theirs: Any) -> bool:
    return len(ours) == len(theirs) and all(
        abs(a - b) < 0.5 for a, b in zip(ours, theirs, strict=True)
    )


def _short(numbers: Any) -> str:
    return '[' + ','.join(f'{number:.4g}' for number in numbers) + ']'


def _check_pooling(cfg: Config, findings: Findings) -> None:
    """Compares the neck with how timm's own classifier pools; steps tell what does not pool."""
    backbone, neck = cfg.model.backbone, cfg.model.get('neck')
    kind = getattr(backbone.type, '__name__', backbone.type).rpartition('.')[2]
    if kind not in _TIMM:
        return
    with torch.device('meta'):
        own = getattr(timm.create_model(backbone.model_name), 'global_pool', None)
    ours = neck.get('mode') if isinstance(neck, Mapping) else None
    if kind == 'PooledTIMMBackbone':
        findings.ok('pooling', f"timm's own, {own}")
    elif not isinstance(own, str) or ours is None:
        return
    elif _POOLS.get(own) == ours:
        findings.ok('pooling', f"{ours}, as timm's own classifier")
    else:
        findings.warning(
            'pooling',
            f"TokenPool takes {ours!r}, but timm's own classifier of {backbone.model_name} pools "
            f'by {own!r}',
            'model.backbone.type=PooledTIMMBackbone model.neck=None',
        )


def _check_method(cfg: Config, findings: Findings) -> None:
    petl = cfg.model.petl
    for method in petl if isinstance(petl, list | tuple) else [petl]:
        if method.get('type') != 'GLEAM':
            continue
        if method.get('alpha', 1) >= _LARGE_ALPHA:
            findings.warning(
                'method',
                f'alpha={method.alpha:g}: on MiniVTAB GLEAM ended at chance with 10 and 100',
                'model.petl.alpha=1',
            )
        if cfg.get('optim_wrapper') and not cfg.optim_wrapper.get('clip_grad'):
            findings.warning(
                'method',
                'gradients are not clipped: on MiniVTAB, at a rate of 1e-2, one such training of '
                'GLEAM-L in three diverged on one task of nine, and none that was clipped',
                'optim_wrapper.clip_grad.max_norm=1.0',
            )
