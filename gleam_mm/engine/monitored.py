"""Metrics that something waits for: they are asked for by their names before a training starts."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmpretrain.structures import DataSample

from gleam_mm.engine.metrics import is_number
from gleam_mm.errors import UserError
from gleam_mm.messages import hint_at


def require(name: str, given: Collection[str] | None, key: str) -> None:
    """Refuses the name of a metric that the evaluators do not give as a number.

    Args:
        name: The name.
        given: Those that they give; None where that is not known.
        key: What says the name, for the message.

    Raises:
        UserError: It is none of them; the message names the nearest.
    """
    if given is not None and name not in given:
        raise UserError(
            f'{key}={name!r}: the evaluators give '
            f'{", ".join(sorted(given)) or "no metric that is a number"}{hint_at(name, given)}'
        )


def numbers_in(metrics: Mapping[str, Any]) -> set[str]:
    """The names of the metrics that are one number each."""
    return {name for name, value in metrics.items() if is_number(value)}


def names_given(evaluator: Evaluator) -> set[str] | None:
    """The names of the numbers that evaluators give; None where not all of them tell."""
    names: set[str] = set()
    for metric in evaluator.metrics:
        own = metric_names(metric)
        if own is None:
            return None
        names |= own
    return names


def metric_names(metric: BaseMetric) -> set[str] | None:
    """What numbers one of MMPretrain's metrics gives, seen by computing it for one made-up image.

    Returns:
        The names; None of a metric of somebody else's, which might do anything, and of one that
        needs more than a label and scores.
    """
    if not type(metric).__module__.startswith('mmpretrain.'):
        return None
    scores = torch.eye(1, 1000)[0]  # of as many classes as any `topk` may ask for
    sample = DataSample().set_gt_label([0]).set_gt_score(scores)
    sample.set_pred_label([0]).set_pred_score(scores)
    metric = copy.deepcopy(metric)
    metric.results = []
    try:
        metric.process({}, [sample.to_dict()])
        found = metric.compute_metrics(metric.results)
    except Exception:  # it is told at the first validation then
        return None
    return {f'{metric.prefix}/{n}' if metric.prefix else n for n in numbers_in(found)}
