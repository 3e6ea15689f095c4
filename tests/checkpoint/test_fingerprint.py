import hashlib

import numpy as np
import pytest
import torch
from quantised import Hidden, Int8
from torch import nn

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


# Tensors of other classes


def quantised():
    return Int8(torch.tensor([[1, -2], [3, 4]], dtype=torch.int8), torch.tensor([0.5, 0.25]))


def test_what_a_tensor_is_made_of_counts():
    weights = {'w': quantised(), 'b': torch.ones(2)}
    assert fingerprint(weights) == fingerprint({'b': torch.ones(2), 'w': quantised()})
    for part in ('values', 'scales'):
        other = quantised()
        getattr(other, part).view(-1)[0] += 1
        assert fingerprint({**weights, 'w': other}) != fingerprint(weights)


def test_a_parameter_of_a_class_of_its_own_counts_by_its_bytes():
    class Packed(nn.Parameter):
        """As bitsandbytes keeps 4-bit numbers."""

    packed = Packed(torch.arange(4, dtype=torch.uint8), requires_grad=False)
    assert fingerprint({'w': packed}) == fingerprint({'w': torch.arange(4, dtype=torch.uint8)})


@pytest.mark.parametrize('per_channel', [False, True])
def test_quantised_types_of_torch(per_channel):
    def make(scale=0.5, first=1.0):
        values = torch.tensor([[first, 2.0], [3.0, 4.0]])
        if not per_channel:
            return torch.quantize_per_tensor(values, scale, 0, torch.qint8)
        scales, zeros = torch.tensor([scale, 0.5]), torch.zeros(2, dtype=torch.int64)
        return torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)

    assert fingerprint({'w': make()}) == fingerprint({'w': make()})
    different = {fingerprint({'w': tensor}) for tensor in (make(), make(0.25), make(first=2.0))}
    assert len(different) == 3


def test_a_tensor_that_hides_its_numbers_is_named():
    hidden = Hidden(torch.ones(1, 1, dtype=torch.int8), torch.ones(1))
    with pytest.raises(TypeError, match='w: a Hidden hides its numbers'):
        fingerprint({'w': hidden})
