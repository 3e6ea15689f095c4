"""Forward methods of modules that are replaced, and given back."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from torch import nn


class Handle(Protocol):
    """What undoes one hook, such as PyTorch's ``RemovableHandle``."""

    def remove(self) -> None:
        """Undoes the hook."""


class ForwardReplacement:
    """Replaces the forward method of one module until :meth:`remove` is called.

    For what must act *inside* a module, where hooks on its input and output do not reach. The
    module stays in its place with its class, its parameters and its hooks.

    Args:
        module: The module.
        forward: What to call instead of its ``forward``: a bound method, or a partial of one or of
            a function, which ``copy.deepcopy`` and ``pickle`` take along.

    Raises:
        RuntimeError: The forward method of the module is replaced already.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., object]) -> None:
        if (other := vars(module).get('forward')) is not None:
            raise RuntimeError(
                f'the forward of this {type(module).__name__} is replaced already, by '
                f'{_owner(other)}; {_owner(forward)} computes it as well, and only one can'
            )
        self._module = module
        module.forward = forward

    def remove(self) -> None:
        """Gives the module its own forward method back."""
        vars(self._module).pop('forward', None)


def _owner(forward: Callable) -> str:
    """What messages call who computes: a method by its title, another object by its class."""
    function = forward.func if isinstance(forward, partial) else forward
    owner = getattr(function, '__self__', None)
    if owner is None:
        return getattr(function, '__module__', type(function).__name__)
    return getattr(owner, 'title', type(owner).__name__)
