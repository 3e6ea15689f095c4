"""On a frozen backbone of quantised Linears, methods train, are saved, loaded and merged."""

import pytest
import torch
from backbones import BACKBONES, NECKS, WIDTH
from torch import nn
from torch.nn import functional as F

from gleam_mm.checkpoint import load_adapter, save_adapter
from gleam_mm.registry import MODELS


class Int8(torch.Tensor):
    """A matrix stored as int8 rows and their scales, as quantisation libraries wrap one."""

    @staticmethod
    def __new__(cls, data, scale):
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=scale.dtype)

    def __init__(self, data, scale):
        self.data_, self.scale_ = data, scale

    def __tensor_flatten__(self):
        return ['data_', 'scale_'], None

    @classmethod
    def __tensor_unflatten__(cls, tensors, context, size, stride):
        return cls(tensors['data_'], tensors['scale_'])

    def dequantize(self):
        return self.data_.to(self.scale_.dtype) * self.scale_

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.linear and isinstance(args[1], cls):
            return F.linear(args[0], args[1].dequantize(), *args[2:], **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].data_, args[0].scale_)
        if function is torch.ops.aten.copy_.default:
            args[0].data_.copy_(args[1].data_)
            args[0].scale_.copy_(args[1].scale_)
            return args[0]
        raise NotImplementedError(f'{function} of a quantised matrix')


def quantize(backbone):
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            scale = module.weight.detach().abs().amax(1, keepdim=True) / 127
            data = (module.weight.detach() / scale).round().to(torch.int8)
            module.weight = nn.Parameter(Int8(data, scale), requires_grad=False)
    return backbone


METHODS = {
    'LoRA': dict(rank=2),
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
        backbone = quantize(BACKBONES['vit']())
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
