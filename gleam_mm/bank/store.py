"""Adapters in memory, within a budget: the least recently used move away, and come back."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gleam_mm.bank.kind import Row
from gleam_mm.checkpoint import CheckpointError

Key = TypeVar('Key', bound=Hashable)


@dataclass(frozen=True, eq=False)
class Loaded:
    """The numbers of an adapter, which nobody changes.

    Attributes:
        row: Those of its method, as its kind packs them.
        head: Its head.
    """

    row: Row
    head: nn.Module

    @cached_property
    def adapter_bytes(self) -> int:
        """The size of the method's numbers, and of a neck's."""
        return sum(map(_size, self.row.values()))

    @cached_property
    def head_bytes(self) -> int:
        """The size of the head."""
        return sum(map(_size, self.head.state_dict().values()))

    @property
    def bytes(self) -> int:
        """The size of both."""
        return self.adapter_bytes + self.head_bytes

    def to(self, device: torch.device) -> 'Loaded':
        """The same on another device."""
        if all(tensor.device == device for tensor in self._tensors()):
            return self
        row = {dtype: numbers.to(device) for dtype, numbers in self.row.items()}
        return Loaded(row, copy.deepcopy(self.head).to(device))

    def _tensors(self) -> list[Tensor]:
        return [*self.row.values(), *self.head.state_dict().values()]


class Store(Generic[Key]):
    """What is held of adapters, by their keys; several threads may ask at once.

    Args:
        load: Reads an adapter from its file.
        device: Where adapters are used.
        device_bytes: How much of them is held there; the rest moves to the CPU's memory or, where
            the device is the CPU, stays in the files. None is no limit. What one pass needs is
            there while it runs, whatever the budget.
        host_bytes: How much is held in the CPU's memory for another device; the rest stays in the
            files. None is no limit.
    """

    def __init__(
        self,
        load: Callable[[Key], Loaded],
        device: torch.device,
        device_bytes: int | None = None,
        host_bytes: int | None = None,
    ) -> None:
        self._load = load
        self._device = device
        self._lock = threading.RLock()
        self._known: set[Key] = set()
        self._held = _Shelf(device_bytes)
        self._leaving: WeakKeyDictionary[Key, Loaded] = WeakKeyDictionary()
        self._aside = _Shelf(0 if device.type == 'cpu' else host_bytes)

    def put(self, key: Key, loaded: Loaded) -> None:
        """Takes an adapter that has just been read."""
        with self._lock:
            self._known.add(key)
            self._hold(key, loaded)

    def drop(self, key: Key) -> None:
        """Lets an adapter go when nobody has its key any more, whatever becomes of its file."""
        with self._lock:
            self._known.discard(key)
            with suppress(CheckpointError, OSError):  # a file that went before
                self._leaving[key] = self._found(key)

    def fetch(self, keys: Sequence[Key]) -> list[Loaded]:
        """Adapters on the device, from wherever they are."""
        with self._lock:  # each once: what one pass needs may be more than the budget
            found = {key: self._fetch(key) for key in dict.fromkeys(keys)}
        return [found[key] for key in keys]

    def held(self) -> list[Loaded]:
        """The adapters on the device at present, the most recently used last."""
        with self._lock:
            return self._held.all()

    def _fetch(self, key: Key) -> Loaded:
        return self._hold(key, self._leaving.get(key) or self._found(key))

    def _found(self, key: Key) -> Loaded:
        return self._held.take(key) or self._aside.take(key) or self._load(key)

    def _hold(self, key: Key, loaded: Loaded) -> Loaded:
        loaded = loaded.to(self._device)
        if key in self._known:  # not removed in the meantime
            for pushed, other in self._held.put(key, loaded):
                if self._aside.limit != 0:
                    self._aside.put(pushed, other.to(torch.device('cpu')))
        return loaded


class _Shelf:
    """Adapters within a number of bytes, the least recently used first."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._items: OrderedDict[Hashable, Loaded] = OrderedDict()
        self._bytes = 0

    def take(self, key: Hashable) -> Loaded | None:
        found = self._items.pop(key, None)
        if found is not None:
            self._bytes -= found.bytes
        return found

    def put(self, key: Hashable, loaded: Loaded) -> list[tuple[Hashable, Loaded]]:
        """Takes an adapter, and gives those that have no place any more."""
        self._items[key] = loaded
        self._bytes += loaded.bytes
        pushed = []
        while self.limit is not None and self._bytes > self.limit:
            oldest = next(iter(self._items))
            pushed.append((oldest, self._items[oldest]))
            self.take(oldest)
        return pushed

    def all(self) -> list[Loaded]:
        return list(self._items.values())


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
