"""Forward methods that multiply by a weight are made to call the module that the weight is of.

A hook on ``qkv`` never fires where an attention computes ``F.linear(x, self.qkv.weight, bias)``, as
BEiT, EVA and SwinV2 do: a method there would change nothing. While methods are attached, such an
attention runs its own, unchanged forward method with a stand-in for ``qkv``, whose weight knows its
module: what is multiplied by it goes through the module, hooks and all.

``nn.MultiheadAttention`` has no module to call: a parameter of its own makes queries, keys and
values, and all of it is one function. Meanwhile it is computed by steps; the first is an
:class:`InProjection`.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.layouts.attention import TorchAttention
from gleam_mm.layouts.replacement import ForwardReplacement


class _Weight:
    """A weight, by which F.linear multiplies by calling its module.

    Args:
        module: The Linear.
    """

    def __init__(self, module: nn.Linear) -> None:
        self.module = module

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Any, args: Sequence = (), kwargs: Mapping | None = None
    ) -> Tensor:
        given = {**dict(zip(('input', 'weight', 'bias'), args, strict=False)), **(kwargs or {})}
        if function is not F.linear:
            raise NotImplementedError(f'{function} of a weight that stands for its module')
        module, bias = given['weight'].module, given.get('bias')
        y = module(given['input'])
        if bias is None or bias is module.bias:
            return y
        return y + (bias if module.bias is None else bias - module.bias)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module.weight, name)


class _StandIn:
    """A Linear whose weight is a :class:`_Weight`; all else is its own."""

    def __init__(self, module: nn.Linear) -> None:
        self.module, self.weight = module, _Weight(module)

    def __call__(self, x: Tensor) -> Tensor:
        return self.module(x)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def called_by_name(module: nn.Module, names: Sequence[str]) -> ForwardReplacement:
    """Lets a module call its Linears, of which it would only take the weights, until removed.

    The module keeps its class, its parameters and its children: its forward method runs on a
    shallow copy, so that several threads may call it at once.

    Args:
        module: The module, such as an attention.
        names: The children that it is to call.

    Raises:
        RuntimeError: The forward method of the module is replaced already.
    """
    return ForwardReplacement(module, partial(_forward, module, tuple(names)))


def _forward(module: nn.Module, names: Sequence[str], *args: Any, **kwargs: Any) -> Any:
    view = copy.copy(module)
    vars(view).pop('forward')
    view._modules = dict(module._modules)
    for name in names:
        # Not as a child: what stands there is no module.
        vars(view)[name] = _StandIn(cast(nn.Linear, view._modules.pop(name)))
    return type(module).forward(view, *args, **kwargs)


class _Renamed(MutableMapping):
    """Some entries of another mapping under names of their own.

    Args:
        whole: The other mapping.
        names: Name here -> name there.
    """

    def __init__(self, whole: MutableMapping, names: Mapping[str, str]) -> None:
        self._whole, self._names = whole, names

    def __getitem__(self, name: str) -> Any:
        return self._whole[self._names[name]]

    def __setitem__(self, name: str, value: Any) -> None:
        self._whole[self._names[name]] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError(f'{name!r} belongs to an attention')

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class InProjection(nn.Linear):
    """The Linear that an ``nn.MultiheadAttention`` multiplies by first, whose parameters it shares.

    It is no child of the attention, so that names of modules and parameters stay.

    Args:
        attention: The attention.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        nn.Module.__init__(self)
        self.in_features = attention.embed_dim
        self.out_features = 3 * attention.embed_dim
        names = {'weight': 'in_proj_weight', 'bias': 'in_proj_bias'}
        vars(self)['_parameters'] = _Renamed(attention._parameters, names)


def attended_by_steps(
    module: nn.MultiheadAttention, projection: InProjection
) -> ForwardReplacement:
    """Lets an ``nn.MultiheadAttention`` call its projections, until removed.

    Args:
        module: The attention.
        projection: Its :class:`InProjection`.

    Raises:
        RuntimeError: The forward method of the module is replaced already.
    """
    return ForwardReplacement(module, partial(_attend, module, projection))


def _attend(
    module: nn.MultiheadAttention,
    projection: InProjection,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What the module's own forward gives of one sequence."""
    one = key is query and value is query
    if not one or key_padding_mask is not None or attn_mask is not None or need_weights:
        raise RuntimeError(
            'an adapted nn.MultiheadAttention attends within one sequence, knows no masks and '
            'gives no weights: call it as attention(x, x, x, need_weights=False)'
        )
    own = TorchAttention(module)
    x = query if module.batch_first else query.transpose(0, 1)
    y = own.project(own.attend(*own.split(projection(x)), None), x)
    return y if module.batch_first else y.transpose(0, 1), None
