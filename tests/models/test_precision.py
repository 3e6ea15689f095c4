"""Autocast on a CPU: attention in float32, and everything where bfloat16 has no fast products."""

import pytest
import torch
from backbones import BACKBONES, evaluating
from torch.nn import functional as F

from gleam_mm.models import PETLClassifier, precision
from gleam_mm.models.precision import SinglePrecisionAttention, fast_precision


def test_attention_is_that_of_float32_with_the_type_of_bfloat16():
    q, k, v = (torch.randn(2, 3, 5, 8, requires_grad=True) for _ in range(3))
    mask = torch.rand(2, 1, 5, 5) > 0.3
    mask[..., 0] = True
    with torch.autocast('cpu', torch.bfloat16), fast_precision():
        output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        assert (q @ k.transpose(-2, -1)).dtype == torch.bfloat16  # the rest stays as it was
    weights = (q @ k.transpose(-2, -1) / 8**0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, (weights @ v).bfloat16())
    output.sum().backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in (k, q, v))


def test_without_autocast_nothing_is_in_between():
    assert not isinstance(fast_precision(), SinglePrecisionAttention)


@pytest.mark.parametrize('kind', ['vit', 'timm-vit'])
def test_a_classifier_under_autocast_attends_in_float32(kind, images, monkeypatch):
    seen = []
    attention = torch._C._nn.scaled_dot_product_attention

    class Spy(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is attention:
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    backbone = evaluating(BACKBONES[kind]())
    model = PETLClassifier(backbone=backbone, petl=dict(type='LoRA', rank=2), neck=None, head=None)
    model.eval()
    with Spy(), torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        model.extract_feat(images[..., :32, :], stage='backbone')
    assert seen and set(seen) == {torch.float32}


@pytest.mark.parametrize('kind', ['vit', 'timm-vit'])
def test_a_cpu_without_fast_products_computes_the_backbone_in_float32(kind, images, monkeypatch):
    monkeypatch.setattr(precision, 'MULTIPLIES_BFLOAT16', False)
    model = PETLClassifier(
        backbone=evaluating(BACKBONES[kind]()),
        petl=dict(type='GLEAM', rank=2, num_experts=2),
        neck=None,
        head=None,
    )
    model.eval()
    with torch.no_grad():
        (expected, *_) = model.extract_feat(images, stage='backbone')
        with torch.autocast('cpu', torch.bfloat16):
            with pytest.warns(UserWarning, match='no fast products in bfloat16'):
                (features, *_) = model.extract_feat(images, stage='backbone')
            assert torch.is_autocast_enabled('cpu')
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
