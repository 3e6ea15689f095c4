"""On a frozen backbone of quantised Linears, methods train, are saved, loaded and merged."""

import pytest
import torch
from backbones import BACKBONES, NECKS, WIDTH, evaluating
from quantised import Int8, quantise
from torch import nn
from torch.nn import functional as F

from gleam_mm.checkpoint import load_adapter, save_adapter
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.petl import SSF, LoRA
from gleam_mm.registry import MODELS

METHODS = {
    'LoRA': dict(rank=2),
    'HFPeft': dict(config=dict(peft_type='VERA', r=2)),
    'GLEAM': dict(rank=2),
    'SSF': {},
    'RepAdapter': dict(rank=2),
    'GLoRA': dict(rank=2, subnet=dict(A='low-rank', B='vector', C='vector')),
    'BitFit': {},
    'VPT': dict(num_prompts=2),
}


@pytest.mark.parametrize('name', METHODS)
def test_a_quantized_backbone(name, images, tmp_path):
    def make(seed):
        torch.manual_seed(0)
        backbone = BACKBONES['vit']()
        quantise(backbone)
        torch.manual_seed(seed)
        model = MODELS.build(
            dict(
                type='PETLClassifier',
                backbone=backbone,
                neck=NECKS['vit'],
                head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=3),
                petl=dict(type=name, **METHODS[name]),
            )
        )
        model.eval()
        return model

    model = make(1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    F.cross_entropy(model.head(model.extract_feat(images)), torch.tensor([0, 1])).backward()
    optimizer.step()
    with torch.no_grad():
        expected = model(images)[0]
        tensors = {k: v for k, v in model.state_dict().items() if k != '_extra_state'}
        metadata = dict(backbone_fingerprint=model.backbone_fingerprint())
        save_adapter(tmp_path / 'adapter.safetensors', tensors, metadata)
        twin = make(2)
        load_adapter(twin, tmp_path / 'adapter.safetensors')
        assert torch.equal(twin(images)[0], expected)
        if name in ('GLEAM', 'VPT'):
            return
        model.petl.merge()
        torch.testing.assert_close(model(images)[0], expected, rtol=0, atol=1e-5)
        model.petl.unmerge()
        assert isinstance(model.backbone.layers[0].attn.qkv.weight, Int8)
        assert torch.equal(model(images)[0], expected)


@torch.no_grad()
def test_a_quantized_backbone_that_is_moved_while_merged_is_quantized_again(images):
    backbone = evaluating(BACKBONES['vit']())
    quantise(backbone)
    weight = backbone.layers[0].attn.qkv.weight
    expected = backbone(images)[0]
    method = LoRA(2, sites=LINEAR_ROLES).eval()
    method.attach(backbone)
    method.merge()
    backbone.double()
    method.detach()
    moved = backbone.layers[0].attn.qkv.weight
    assert isinstance(moved, Int8) and isinstance(moved, nn.Parameter)
    assert torch.equal(moved.values, weight.values)
    assert torch.equal(moved.scales, weight.scales.double())
    torch.testing.assert_close(backbone(images.double())[0], expected.double(), rtol=0, atol=1e-5)


def test_a_linear_of_another_class_is_named(vit):
    """As PyTorch's quantize_dynamic puts in the place of a Linear."""

    class Linear(nn.Module):
        __module__ = 'torch.ao.nn.quantized'

    vit.layers[0].attn.qkv = Linear()
    for method in (LoRA(2), SSF(sites=['qkv'])):
        with pytest.raises(
            ValueError, match=r'a torch\.ao\..*Linear; it has to be a torch\.nn\.Lin'
        ):
            method.attach(vit)
