"""Metrics of numbers, and those that come as something else than one number."""

import json

import numpy as np
import pytest
import torch
from mmpretrain.evaluation import ConfusionMatrix, SingleLabelMetric
from mmpretrain.structures import DataSample
from scipy import stats
from sklearn import metrics

from gleam_mm.engine import RegressionMetric, headline, summary
from gleam_mm.engine.metrics import numbers_of
from gleam_mm.engine.validate import cells


def evaluated(metric, samples):
    metric.process(None, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


def test_numbers_against_scikit_learn():
    random = np.random.default_rng(0)
    predicted, target = random.normal(size=(2, 20, 2))
    samples = [
        DataSample().set_pred_score(p).set_gt_score(t)
        for p, t in zip(predicted, target, strict=True)
    ]
    metric = RegressionMetric()
    metric.dataset_meta = dict(classes=('x', 'y'))
    found = evaluated(metric, samples)
    for name, reference in (
        ('mae', metrics.mean_absolute_error),
        ('rmse', metrics.root_mean_squared_error),
        ('r2', metrics.r2_score),
        ('pearson', lambda t, p: stats.pearsonr(t, p).statistic),
    ):
        each = [reference(target[:, i], predicted[:, i]) for i in range(2)]
        assert [found[f'regression/{name}/{of}'] for of in 'xy'] == pytest.approx(each, rel=1e-5)
        assert found[f'regression/{name}'] == pytest.approx(np.mean(each), rel=1e-5)


def test_a_constant_target():
    samples = [DataSample().set_pred_score([float(i)]).set_gt_score([1.0]) for i in range(3)]
    found = evaluated(RegressionMetric(), samples)
    assert found['regression/r2'] == found['regression/pearson'] == 0
    assert found['regression/mae'] == pytest.approx(2 / 3)


@pytest.fixture
def several():
    """A number a class, and a matrix."""
    samples = [
        DataSample().set_pred_score(torch.eye(3)[i % 3]).set_pred_label(i % 3).set_gt_label(i % 2)
        for i in range(6)
    ]
    each = evaluated(SingleLabelMetric(average=None, num_classes=3), samples)
    return each | evaluated(ConfusionMatrix(num_classes=3), samples) | {'data_time': 1.0}


def test_they_are_told(several):
    lines = summary.of_metrics(several).splitlines()
    told = dict(line.split(maxsplit=1) for line in lines)
    precision = told['single-label/precision_classwise'].split()
    assert [float(number) for number in precision] == pytest.approx(
        several['single-label/precision_classwise'], abs=1e-4
    )
    assert told['confusion_matrix/result'] == '3 x 3 numbers, which --out writes'
    assert 'data_time' not in told
    assert headline(several) == 'no metric'
    assert numbers_of({**several, 'accuracy/top1': torch.tensor(50.0)}) == {'accuracy/top1': 50.0}


def test_a_target_may_be_a_time():
    lifetime = {'regression/mae/lifetime': 0.5, 'data_time': 1.0, 'time': 2.0}
    assert numbers_of(lifetime) == {'regression/mae/lifetime': 0.5}
    assert summary.of_metrics(lifetime).split() == ['regression/mae/lifetime', '0.5000']


def test_small_errors_have_digits_in_tables():
    assert cells({'accuracy/top1': 98.244, 'regression/mae': 0.00312}) == ['98.24', '0.0031']


def test_they_are_written(several, tmp_path):
    summary.write_metrics(several, tmp_path / 'metrics.json')
    written = json.loads((tmp_path / 'metrics.json').read_text())
    assert written['confusion_matrix/result'] == several['confusion_matrix/result'].tolist()
