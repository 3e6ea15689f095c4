"""Attention under mixed precision on the CPU: computed in float32, handed on in bfloat16."""

import torch
from torch import nn
from torch.nn import functional as F

from gleam_mm.engine.amp import CPUAmpOptimWrapper


class _Attention(nn.Module):
    def __init__(self, mask=None):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.mask = mask

    def forward(self, x):
        qkv = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        self.seen = qkv
        self.result = F.scaled_dot_product_attention(*qkv, attn_mask=self.mask)
        return self.result


def _wrapper(model):
    return CPUAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def test_attention_is_computed_in_float32():
    model, x = _Attention(), torch.randn(2, 5, 8)
    with _wrapper(model).optim_context(model):
        model(x)
    assert model.seen.dtype == model.result.dtype == torch.bfloat16
    exact = F.scaled_dot_product_attention(*model.seen.float())
    assert torch.equal(model.result, exact.bfloat16())
    model.result.float().sum().backward()
    assert model.qkv.weight.grad.abs().sum() > 0


def test_masked_attention_is_left_alone():
    model, x = _Attention(mask=torch.eye(5, dtype=torch.bool)), torch.randn(2, 5, 8)
    with _wrapper(model).optim_context(model):
        model(x)
    assert torch.equal(model.result, model.seen[2])  # each token sees itself alone


def test_the_function_is_itself_again_afterwards():
    model = _Attention()
    with _wrapper(model).optim_context(model):
        pass
    assert model(torch.randn(2, 5, 8)).dtype == torch.float32
