"""Weights as quantising libraries keep them: tensors made of others, with few operators."""

import torch
from torch import nn
from torch.utils._pytree import tree_map

aten = torch.ops.aten


class Int8(torch.Tensor):
    """Numbers as int8, and a scale a row."""

    @staticmethod
    def __new__(cls, values, scales):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, dtype=scales.dtype, device=values.device
        )

    def __init__(self, values, scales):
        self.values, self.scales = values, scales

    @classmethod
    def of(cls, weight):
        """Quantises a matrix."""
        scales = weight.abs().amax(1) / 127
        return cls((weight / scales[:, None]).round().to(torch.int8), scales)

    def dequantize(self):
        """The numbers that it stands for."""
        return self._dense(self)

    def __tensor_flatten__(self):
        return ['values', 'scales'], None

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function in (aten.detach.default, aten.alias.default):
            return type(args[0])(args[0].values, args[0].scales)
        if function is aten.clone.default:
            return type(args[0])(args[0].values.clone(), args[0].scales.clone())
        if function is aten._to_copy.default:
            values = args[0].values.to(kwargs.get('device'))
            return type(args[0])(values, args[0].scales.to(**kwargs))
        if function is aten.copy_.default:
            target, source = args[:2]
            target.values.copy_(source.values)
            target.scales.copy_(source.scales)
            return target
        if function in (aten.t.default, aten.mm.default, aten.addmm.default):
            return function(*tree_map(cls._dense, args), **(kwargs or {}))
        raise NotImplementedError(f'{cls.__name__} has no {function}')

    @staticmethod
    def _dense(value):
        return value.values * value.scales[:, None] if isinstance(value, Int8) else value


class Hidden(Int8):
    """One that does not tell what it is made of."""

    __tensor_flatten__ = property()  # so that there is none


def quantise(backbone):
    """Quantises the Linears of a backbone in place."""
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(Int8.of(module.weight.detach()), requires_grad=False)
