"""What depends on parameters alone is computed once for many passes of an evaluation.

A compiler calls it constant folding: the products of shared and local matrices, the kernels of
experts at the original resolution, rounded weights.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

_CONSTANTS = '_petl_constants'  # the attribute of a module whose constants are folded

P = ParamSpec('P')
R = TypeVar('R')
M = TypeVar('M', bound=nn.Module)


def constant(function: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method of a module that depends on nothing but the module's parameters and its arguments.

    While the constants of the module are folded, it is computed once in evaluation without
    gradients. The result must not be changed in place.
    """

    @wraps(function)
    def folded(self: M, *args: P.args, **kwargs: P.kwargs) -> R:
        known: dict[Hashable, Any] | None = vars(self).get(_CONSTANTS)
        if known is None or not _evaluating(self):
            return function(self, *args, **kwargs)
        key = function.__name__, args, *kwargs.items(), _precision()
        if key not in known:
            known[key] = function(self, *args, **kwargs)
        return known[key]

    return folded


class Seen(NamedTuple):
    """A tensor that something was computed from, and how it stood then."""

    tensor: Tensor
    address: int | None  # of one that is made of others, such as a quantised one, none
    dtype: torch.dtype
    version: int

    @classmethod
    def now(cls, tensor: Tensor) -> 'Seen':
        """The tensor as it stands."""
        made_of_others = hasattr(tensor, '__tensor_flatten__')
        address = None if made_of_others else tensor.data_ptr()
        return cls(tensor, address, tensor.dtype, tensor._version)

    @property
    def changed(self) -> bool:
        """Whether it has other numbers by now, as far as PyTorch tells."""
        tensor, address = self.tensor, self.address
        moved = address is not None and tensor.data_ptr() != address
        return moved or tensor._version != self.version or tensor.dtype != self.dtype


class _Held(NamedTuple):
    """A parameter or buffer that constants were computed from, and where it is held."""

    owner: dict[str, Any]
    name: str
    seen: Seen

    @property
    def replaced(self) -> bool:
        return self.owner.get(self.name) is not self.seen.tensor


class Folding:
    """The constants of a module and its children, for as long as the parameters stay the same.

    Parameters that were made within ``torch.inference_mode`` do not tell when they are changed: of
    those nothing is kept.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._watch()

    def check(self) -> bool:
        """Forgets constants of parameters that were changed.

        Returns:
            Whether the parameters are still the same objects; if not, others lend theirs for a
            pass, and there is nothing constant.
        """
        if torch.compiler.is_compiling():  # it folds by itself, and would guard every parameter
            return True
        if any(held.replaced for held in self._held):
            return False
        if any(held.seen.changed for held in self._held):
            self._watch()
        return True

    def end(self) -> None:
        """Forgets all constants."""
        for module in self._module.modules():
            vars(module).pop(_CONSTANTS, None)

    def _watch(self) -> None:
        found = [
            (owner, name, tensor)
            for module in self._module.modules()
            for owner in (module._parameters, module._buffers)
            for name, tensor in owner.items()
            if tensor is not None
        ]
        self._held: list[_Held] = []
        if any(tensor.is_inference() for _, _, tensor in found):
            self.end()
            return
        for module in self._module.modules():
            vars(module)[_CONSTANTS] = {}
        self._held = [_Held(owner, name, Seen.now(tensor)) for owner, name, tensor in found]


@contextmanager
def constants_folded(model: nn.Module) -> Iterator[None]:
    """Within it, the methods in a model compute what depends on their parameters alone once.

    Args:
        model: Whatever has methods in it, which are evaluated with parameters that stay as they
            are.
    """
    methods: list[Any] = [m for m in model.modules() if hasattr(type(m), 'fold_constants')]
    for method in methods:
        method.fold_constants()
    try:
        yield
    finally:
        for method in methods:
            method.fold_constants(False)


def _evaluating(module: nn.Module) -> bool:
    return not (
        module.training
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
    )


def _precision() -> tuple[Hashable, ...]:
    """What mixed precision makes of a product of matrices."""
    kinds = ('cpu', 'cuda')
    return tuple(torch.is_autocast_enabled(k) and torch.get_autocast_dtype(k) for k in kinds)
