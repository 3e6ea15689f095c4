"""Forward methods that multiply by a weight are made to call the module that the weight is of.

A hook on ``qkv`` never fires where an attention computes ``F.linear(x, self.qkv.weight, bias)``, as
BEiT, EVA and SwinV2 do: a method there would change nothing. While methods are attached, such an
attention runs its own, unchanged forward method with a stand-in for ``qkv``, whose weight knows its
module: what is multiplied by it goes through the module, hooks and all.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F


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


class CalledByName:
    """Lets a module call its Linears, of which it would only take the weights, until removed.

    The module keeps its class, its parameters and its children: its forward method runs on a
    shallow copy, so that several threads may call it at once.

    Args:
        module: The module, such as an attention.
        names: The children that it is to call.

    Raises:
        RuntimeError: The forward method of the module is replaced already.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        if 'forward' in vars(module):
            raise RuntimeError(f'the forward of this {type(module).__name__} is replaced already')
        self._module = module
        module.forward = partial(_forward, module, tuple(names))

    def remove(self) -> None:
        """Gives the module its own forward method back."""
        vars(self._module).pop('forward', None)


def _forward(module: nn.Module, names: Sequence[str], *args: Any, **kwargs: Any) -> Any:
    view = copy.copy(module)
    vars(view).pop('forward')
    view._modules = dict(module._modules)
    for name in names:
        # Not as a child: what stands there is no module.
        vars(view)[name] = _StandIn(cast(nn.Linear, view._modules.pop(name)))
    return type(module).forward(view, *args, **kwargs)
