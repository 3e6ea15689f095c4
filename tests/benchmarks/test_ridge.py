"""benchmarks/ridge.py against scikit-learn's ridge regression."""

import pytest
import ridge
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

CLASSES = 4


def split(number, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % CLASSES
    noise = torch.randn(number, 12, generator=generator, dtype=torch.float64)
    return noise * torch.arange(1, 13) + 2 * F.one_hot(labels, 12) + 5, labels


def test_accuracies():
    (x, labels), judged = split(60, 0), [split(40, 1), split(80, 2)]
    scaler = StandardScaler().fit(x)
    found = ridge.accuracies((x, labels), CLASSES, judged)
    assert len({tuple(row) for row in found}) > 1
    for penalty, row in zip(ridge.PENALTIES, found, strict=True):
        # Its standard deviation divides by the number of rows, ours by one less.
        probe = Ridge(penalty * 60 / 59).fit(scaler.transform(x), F.one_hot(labels, CLASSES))
        for (other, truth), accuracy in zip(judged, row, strict=True):
            hits = probe.predict(scaler.transform(other)).argmax(1) == truth.numpy()
            assert accuracy == pytest.approx(100 * hits.mean())
