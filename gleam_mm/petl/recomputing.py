"""Activations that a method reads are computed again for its gradients, instead of kept.

What a method keeps for its backward pass is mostly what the site's module reads: the output of a
norm or of an activation, for the matrix that goes down from there has a gradient. Autograd keeps
the *input* of that norm or activation anyway.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import saved_tensors_hooks

from gleam_mm.petl.sharing import lowered

_SOURCE = '_petl_source'  # the attribute of a tensor that can be computed again

_PLAIN = (Tensor, FakeTensor)  # fake ones stand for plain ones where memory is forecast


class _Autocast(NamedTuple):
    """The mixed precision that a module ran under."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def at(cls, tensor: Tensor) -> '_Autocast':
        kind = tensor.device.type
        return cls(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def context(self) -> AbstractContextManager:
        return torch.autocast(self.device, self.dtype, self.enabled, cache_enabled=False)


class _Source:
    """How to compute the output of a norm or an activation again: from the module and its input."""

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        self.module = module
        self.parameters = dict(module._parameters)  # which may be lent for the pass alone
        self.x = x.detach()  # shares its memory and its version
        self.autocast = _Autocast.at(x)
        self.versions = self._now()
        self.dtype = y.dtype
        self.version = y._version
        self._computed: Tensor | None = None
        self._waiting = 0

    def _now(self) -> tuple[int, ...]:
        read = (self.x, *self.parameters.values())
        return tuple(tensor._version for tensor in read if tensor is not None)

    def fits(self, y: Tensor) -> bool:
        """Whether a tensor that came from here is what it was."""
        return y._version == self.version and self._now() == self.versions

    def keep(self, saved: Tensor) -> '_Recomputed':
        """Stands for a tensor in the memory of the output."""
        self._waiting += 1
        return _Recomputed(self, saved.size(), saved.stride(), int(saved.storage_offset()))

    @torch.no_grad()
    def compute(self) -> Tensor:
        """The output, computed once for all that wait for it."""
        made = self._computed
        if made is None:
            if self._now() != self.versions:
                raise RuntimeError(
                    f'what a {type(self.module).__name__} read, or its own parameters, were changed'
                    ' in place before the backward pass, which has to compute its output again: '
                    'change them after it, or attach with recompute=False'
                )
            own = dict(self.module._parameters)
            self.module._parameters.update(self.parameters)
            try:
                with self.autocast.context():
                    made = self.module.forward(self.x).to(self.dtype)
            finally:
                self.module._parameters.update(own)
        self._waiting -= 1
        self._computed = made if self._waiting > 0 else None
        return made


class _Recomputed(NamedTuple):
    """Stands for a saved tensor, any view of the output, until that is computed again."""

    source: _Source
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def compute(self) -> Tensor:
        return self.source.compute().as_strided(self.size, self.stride, self.offset)


def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
    """A forward hook: notes with the output of a norm or activation what it came from."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or kwargs or len(args) != 1:
        return
    (x,) = args
    if not (isinstance(x, Tensor) and isinstance(output, Tensor)) or x.is_meta:
        return  # on meta there is no memory to save, and autocast does not know the device
    if is_functorch_wrapped_tensor(x):
        return  # within torch.func.grad, tensors do not tell their memory
    if not (x.requires_grad and output.requires_grad):
        return  # then autograd does not keep the input
    if 'forward' in vars(module) or _memory(output) == _memory(x):
        return  # another computes in its place, or it writes over its input
    setattr(output, _SOURCE, _Source(module, x, output))


def lower(module: nn.Module, args: tuple) -> tuple | None:
    """A forward pre-hook: under autocast, a Linear and those who project its input read one copy.

    Each would make its own, and bring its gradient back by itself.
    """
    x = args[0]
    low = lowered(x) if isinstance(x, Tensor) else x
    if low is x:
        return None
    source = getattr(x, _SOURCE, None)
    if source is not None and low.requires_grad and source.fits(x):
        setattr(low, _SOURCE, _Source(source.module, source.x, low))
    return low, *args[1:]


def recomputing(*read: Any) -> AbstractContextManager:
    """Within it, of these tensors nothing is kept for the backward pass that can be computed again.

    Where others decide already what is kept, such as gradient checkpointing, or a compiler, it
    changes nothing.

    Args:
        read: What a method reads: the input of a site's module, and its output.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return nullcontext()
    found: dict[int, _Source] = {}
    for tensor in read:
        for holder in (tensor, getattr(tensor, '_base', None)):
            source = getattr(holder, _SOURCE, None)
            if holder is not None and source is not None and source.fits(holder):
                found[_memory(holder)] = source
    if not found or _hooks() is not None:
        return nullcontext()

    def pack(saved: Tensor) -> Tensor | _Recomputed:
        if type(saved) not in _PLAIN or saved.layout is not torch.strided:
            return _apart(saved)
        source = found.get(_memory(saved))
        if source is None or saved.dtype != source.dtype or saved._version != source.version:
            return _apart(saved)
        return source.keep(saved)

    return saved_tensors_hooks(pack, _unpack)


def _memory(tensor: Tensor) -> int:
    """What tells the memory of a tensor from that of others; fake tensors have no address."""
    return tensor.untyped_storage()._cdata


def recomputed_elsewhere() -> bool:
    """Whether others, such as gradient checkpointing, decide here what autograd keeps.

    They run a part of a pass once more, and what that part reads is to be what it computed itself.
    A compiler knows by itself what it has to compute once more.
    """
    if torch.compiler.is_compiling():
        return False
    hooks = _hooks()
    return hooks is not None and hooks[1] is not _unpack


def _hooks() -> tuple | None:
    """The hooks that decide here what autograd keeps, ours or others', where there are any."""
    hooks: tuple | None = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks


def _apart(saved: Tensor) -> Tensor:
    """The same numbers without the graph, which autograd knows by itself.

    An operation that keeps its own output would hold what holds it, and no pass that is not gone
    back through would ever be freed.
    """
    return saved if saved.grad_fn is None else saved.detach()


def _unpack(packed: Tensor | _Recomputed) -> Tensor:
    return packed.compute() if isinstance(packed, _Recomputed) else packed
