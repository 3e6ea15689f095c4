"""What belongs to one forward pass of a backbone."""

import threading
from collections.abc import Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils import checkpoint

_Value = TypeVar('_Value', bound=Hashable)

_OUTSIDE = -1
"""What PyTorch says where no backward pass runs."""


class PassState(threading.local):
    """Values that one forward pass carries from module to module; each thread has its own.

    So a model may serve several threads at once, each with images of another size. A subclass sets
    what a pass starts with in ``__init__``, which runs anew in every thread. Copies start empty.
    """

    def __reduce__(self) -> tuple:
        return type(self), ()


class _Told(NamedTuple):
    """A value of a pass, the backward pass that it is within, and whether it makes a graph."""

    value: Any = None
    within: int = _OUTSIDE
    graph: bool = False


class _Own(PassState):
    """What is told of the pass that this thread has begun, by stage."""

    def __init__(self) -> None:
        self.told: dict[int, _Told] = {}


class OfImages(Generic[_Value]):
    """What follows from the images of a pass, also where a part of it is computed again.

    Gradient checkpointing calls modules during the backward pass, maybe in a thread of autograd's
    own: the pass that they belong to began long before, and others may have begun since. Which one
    it is, is not to be seen: any that waits for its gradients.
    """

    def __init__(self) -> None:
        self._own = _Own()
        self._waiting: dict[int, set[_Value]] = {}
        self._gone_back: set[int] = set()

    def __reduce__(self) -> tuple:
        return type(self), ()

    def begin(self, value: _Value | None, stage: int = 0) -> None:
        """A pass begins, or comes to a stage.

        Args:
            value: Its value, if that is known.
            stage: The index of the stage.
        """
        self._own.told[stage] = _Told(value, _backward(), torch.is_grad_enabled())

    def possible(self, stage: int = 0) -> list[_Value]:
        """The value of the pass that runs; of one that is computed again, each that it may have.

        Args:
            stage: The index of the stage.
        """
        told, within = self._own.told.get(stage, _Told()), _backward()
        if told.within != within:
            self._gone_back.add(stage)
            if stage in self._waiting:
                return list(self._waiting[stage])
        elif told.value is not None and within == _OUTSIDE and _checkpointed(told.graph):
            if stage in self._gone_back:
                self._gone_back.remove(stage)
                self._waiting.pop(stage, None)
            self._waiting.setdefault(stage, set()).add(told.value)
        return [] if told.value is None else [told.value]


def the_only(found: Sequence[_Value]) -> _Value:
    """What follows from every value that is possible.

    Args:
        found: What follows from each.

    Raises:
        RuntimeError: They differ.
    """
    if any(other != found[0] for other in found[1:]):
        raise RuntimeError(
            'gradient checkpointing computes a part of a pass again, but of which one is not '
            'known: passes with other images came before this backward(). Call backward() after '
            'each, or do without checkpointing'
        )
    return found[0]


def within_backward() -> bool:
    """Whether a backward pass is computing, and so calls what it computes again."""
    return _backward() != _OUTSIDE


def _backward() -> int:
    """The number of the backward pass that this thread is within."""
    if torch.compiler.is_compiling():
        return _OUTSIDE
    number: int = torch._C._current_graph_task_id()
    return number


def _checkpointed(graph: bool) -> bool:
    """Whether what runs, of a pass that makes a graph or not, is to be computed again for it."""
    if torch.compiler.is_compiling() or not graph:
        return False
    if not torch.is_grad_enabled():
        return True
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == checkpoint.__name__
