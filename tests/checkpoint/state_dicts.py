"""How state dicts are compared."""

import torch


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
