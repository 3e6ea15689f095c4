"""Metrics: what they come as, and those of numbers that are predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from gleam_mm.registry import METRICS

TIMES = ('time', 'data_time')
"""What MMEngine notes beside metrics: seconds of a step, and those that it waits for data."""


_RULES = {'mae': 'less', 'rmse': 'less', 'r2': 'greater', 'pearson': 'greater'}
"""What :class:`RegressionMetric` gives -> which of it is better."""


def rule_of(name: str) -> str | None:
    """Whether ``'greater'`` or ``'less'`` is better of a metric of :class:`RegressionMetric`.

    Targets may be called anything: the words in their names say nothing of it.

    Args:
        name: The name of a metric, such as ``regression/mae/stop``.

    Returns:
        None of any other metric.
    """
    return next((_RULES[part] for part in name.split('/')[:2] if part in _RULES), None)


@METRICS.register_module()
class RegressionMetric(BaseMetric):
    """How far predicted numbers are from their targets.

    ``mae`` is the mean absolute error, ``rmse`` the root of the mean squared one, ``r2`` the share
    of the variance that is explained, and ``pearson`` the correlation; the latter two are 0 where a
    target, or what is predicted, is constant. Of several targets it is the mean of each metric, and
    each by the name of its target, ``regression/mae/<name>``.

    Args:
        collect_device: As in MMEngine.
        prefix: Another beginning of the names.
    """

    default_prefix = 'regression'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps prediction and target of each sample."""
        for sample in data_samples:
            pair = (sample['pred_score'], sample['gt_score'])
            self.results.append(tuple(numbers.double().cpu().numpy() for numbers in pair))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The metrics of all samples."""
        predicted, target = (np.stack(numbers) for numbers in zip(*results, strict=True))
        error = predicted - target
        each = {
            'mae': np.abs(error).mean(0),
            'rmse': np.sqrt((error**2).mean(0)),
            'r2': _where(target.var(0), lambda v: 1 - (error**2).mean(0) / v),
            'pearson': _correlation(predicted, target),
        }
        found = {name: float(values.mean()) for name, values in each.items()}
        names = (self.dataset_meta or {}).get('classes') or range(target.shape[1])
        if target.shape[1] > 1:
            for name, values in each.items():
                for of, value in zip(names, values, strict=True):
                    found[f'{name}/{of}'] = float(value)
        return found


def _correlation(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    covariance = ((ours - ours.mean(0)) * (theirs - theirs.mean(0))).mean(0)
    return _where(ours.std(0) * theirs.std(0), lambda scale: covariance / scale)


def _where(scale: np.ndarray, value: Any) -> np.ndarray:
    """A value that is divided by a scale; 0 where that is 0."""
    return np.where(scale > 0, value(np.where(scale > 0, scale, 1)), 0.0)


def is_number(value: Any) -> bool:
    """Whether a metric is one number, whatever holds it."""
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return value.size == 1 if isinstance(value, np.generic | np.ndarray) else value.numel() == 1
    return isinstance(value, int | float)


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as files say them: numbers, and lists of numbers such as one a class.

    Mappings become one metric a key, ``name/key``. What is no number is left out.
    """
    plain: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            plain |= {f'{name}/{key}': part for key, part in plain_metrics(value).items()}
        elif (number := _plain(value)) is not _NO_NUMBER:
            plain[name] = number
    return plain


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number each, without times."""
    return {
        name: value
        for name, value in plain_metrics(metrics).items()
        if is_number(value) and name not in TIMES
    }


_NO_NUMBER = object()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray | Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return _NO_NUMBER if any(part is _NO_NUMBER for part in parts) else parts
    return value if value is None or isinstance(value, int | float) else _NO_NUMBER
