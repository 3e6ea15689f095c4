import hashlib

import numpy as np
import pytest
import torch

from gleam_mm.checkpoint import fingerprint


def test_fingerprint_is_the_documented_hash():
    tensor = torch.tensor([[1.0, 2.0]])
    header = b'w torch.float32 (1, 2)\n'
    expected = hashlib.sha256(header + np.array([1.0, 2.0], np.float32).tobytes()).hexdigest()
    assert fingerprint({'w': tensor}) == expected


def test_fingerprint_ignores_order_and_layout(weights):
    assert fingerprint(dict(reversed(weights.items()))) == fingerprint(weights)
    strided = {**weights, 'a.weight': weights['a.weight'].t().contiguous().t()}
    assert fingerprint(strided) == fingerprint(weights)


@pytest.mark.parametrize(
    'change',
    [
        lambda w: {**w, 'b': w['b'] + 1e-6},
        lambda w: {**w, 'b': w['b'].bfloat16()},
        lambda w: {**w, 'b': w['b'].reshape(1)},
        lambda w: {('c' if k == 'b' else k): v for k, v in w.items()},
        lambda w: {k: v for k, v in w.items() if k != 'b'},
    ],
)
def test_fingerprint_tells_weights_apart(change, weights):
    assert fingerprint(change(weights)) != fingerprint(weights)
