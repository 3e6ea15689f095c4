"""One turn of a model, a training step or an evaluation: its time, and the peak of its memory.

On a CPU the time is that which the process was given, so that other programs matter less; on a card
it is the clock's, once the card is done. Memory is that of tensors, as the allocator was asked for
it: neither Python and its libraries, nor what an allocator keeps in reserve.
"""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version

import allocator
import torch
from contenders import CLASSES
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gleam_mm.machine import processor
from gleam_mm.models import use_cuda_graphs
from gleam_mm.petl import PETLMethod

DTYPES = {'float32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}
"""What autocast computes in; with float32 there is none."""

RECORDING = 'reduce-overhead'
COMPILED = 'default', RECORDING
"""Modes of torch.compile; in the second one it records CUDA graphs of what it compiled."""


class Turns:
    """A model that takes turns with others.

    Args:
        model: From images to logits.
        images: A batch of them, on the device.
        training: Whether a turn is a step of AdamW, or else an evaluation.
        dtype: A key of :data:`DTYPES`.
        channels_last: Whether images and the weights of convolutions are in this format.
        cuda_graph: Whether the passes of a step are recorded and replayed.
        compiled: One of :data:`COMPILED`, or nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        training: bool,
        dtype: str = 'float32',
        channels_last: bool = False,
        cuda_graph: bool = False,
        compiled: str = '',
    ) -> None:
        layout = torch.channels_last if channels_last else torch.preserve_format
        self.model = model.to(images.device, memory_format=layout).train(training)
        self.images = images.to(memory_format=layout)
        self.labels = torch.arange(len(images), device=images.device) % CLASSES
        self.training = training
        self.dtype = DTYPES[dtype]
        trained = [p for p in model.parameters() if p.requires_grad]
        if not training:  # as the loops of validation and testing do
            for module in model.modules():
                if isinstance(module, PETLMethod):
                    module.fold_constants()
        self.cuda_graph = cuda_graph
        if cuda_graph:
            use_cuda_graphs(self.model)
        if compiled:
            self.model.compile(mode=compiled, dynamic=False)
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)
        scaled = training and self.dtype is torch.float16 and images.is_cuda
        self.scaler = torch.amp.GradScaler(images.device.type, enabled=scaled)

    def turn(self) -> None:
        """A step, or an evaluation."""
        if self.training:
            self._step()
        else:
            with torch.no_grad(), self._autocast():
                self.model(self.images)

    def seconds(self) -> float:
        """How long a turn takes."""
        return seconds(self.turn, self.images.is_cuda)

    def peak(self) -> int:
        """Bytes of the model, of the optimizer's state, and of what a turn adds at its peak."""
        kept = [*self.model.parameters(), *self.model.buffers()]
        for state in self.optimizer.state.values():
            kept += [value for value in state.values() if isinstance(value, torch.Tensor)]
        return sum(tensor.nbytes for tensor in kept) + self._transient()

    def _transient(self) -> int:
        if self.images.is_cuda:
            if self.cuda_graph:  # what a graph needs is reserved when it is recorded
                use_cuda_graphs(self.model)
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.turn()
            return torch.cuda.max_memory_allocated() - before
        return allocator.peak(self.turn)

    def _step(self) -> None:
        with self._autocast():
            loss = nn.functional.cross_entropy(self.model(self.images), self.labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()  # here, as MMEngine does

    def _autocast(self) -> AbstractContextManager:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.images.device.type, self.dtype)


def seconds(turn: Callable[[], object], on_card: bool, repeats: int = 1) -> float:
    """How long a turn takes, as the mean of several; on a CPU its CPU time."""
    clock = time.perf_counter if on_card else time.process_time
    if on_card:
        torch.cuda.synchronize()
    start = clock()
    for _ in range(repeats):
        turn()
    if on_card:
        torch.cuda.synchronize()
    return (clock() - start) / repeats


def in_turn(entries: dict[str, Turns]) -> Iterator[dict[str, float]]:
    """Rounds without an end, in each of which every model takes one turn; the seconds of each.

    A change in the machine's speed meets all of them alike.
    """
    while True:
        yield {name: entry.seconds() for name, entry in entries.items()}


def profiled(entry: Turns, rows: int) -> list[tuple[str, float, int]]:
    """Where the time of a turn goes.

    Returns:
        Operations, their shares of the time and how often they are called, the dearest first.
    """
    cuda = entry.images.is_cuda
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        entry.turn()
        if cuda:
            torch.cuda.synchronize()
    own = 'self_device_time_total' if cuda else 'self_cpu_time_total'
    # A kernel's time is its operation's as well: of the two, operations are told.
    averages = [event for event in found.key_averages() if event.device_type == DeviceType.CPU]
    averages.sort(key=lambda event: -getattr(event, own))
    total = sum(getattr(event, own) for event in averages) or 1
    return [(event.key, getattr(event, own) / total, event.count) for event in averages[:rows]]


def environment(device: str = 'cpu') -> dict[str, str]:
    """The machine and the versions that a measurement is of."""
    names = ('torch', 'torchvision', 'timm', 'mmpretrain', 'mmengine', 'peft')
    return {
        'machine': torch.cuda.get_device_name() if device == 'cuda' else processor(),
        'system': f'{platform.system()} {platform.machine()}, Python {platform.python_version()}',
        'versions': ', '.join(f'{name} {version(name)}' for name in names),
    }
