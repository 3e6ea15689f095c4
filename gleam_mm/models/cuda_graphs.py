"""The passes of a training step as CUDA graphs: recorded once, and launched as one call each.

An adapter on every Linear is a thousand small operations a step, which a GPU computes faster than
Python can ask for them. A graph asks for all of them at once.
"""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from gleam_mm.petl import PETLMethod

_WARM_UPS = 2
"""Passes before one is recorded, beside a first in which much is made once: libraries choose their
algorithms and reserve memory in them."""

_MOST = 2
"""Graphs that are kept, which each hold the memory of a step: a full batch's and the last one's."""


class CudaGraphs:
    """What takes the place of a module's call, see :func:`use_cuda_graphs`.

    Args:
        module: From a batch of images to tensors, in any structure.
        parts: Other modules that compute in it, such as a method that is attached to it.
    """

    def __init__(self, module: nn.Module, *parts: nn.Module) -> None:
        self._module, self._parts = module, nn.ModuleList((module, *parts))
        self._trained: tuple[tuple[nn.Parameter, int], ...] = ()
        self._passes: dict[tuple, _Passes] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._is_step(args, kwargs):
            return self._module._call_impl(*args, **kwargs)
        images = args[0]
        trained = tuple((p, p.data_ptr()) for p in self._parts.parameters() if p.requires_grad)
        if not trained:
            return self._module._call_impl(images)
        if not _same(trained, self._trained):  # others, or elsewhere in memory
            self._trained, self._passes = trained, {}
        modes = tuple(part.training for part in self._parts)
        key = images.shape, images.dtype, images.device, modes, _precision()
        if key not in self._passes:
            if len(self._passes) == _MOST:
                return self._module._call_impl(images)
            self._passes[key] = self._recorded(images)
        self._keep_gradients()
        return self._passes[key](images)

    def remove(self) -> None:
        """Gives the module its own call back, and the memory of its graphs."""
        self._passes = {}
        self._module._compiled_call_impl = None

    def _is_step(self, args: tuple, kwargs: dict) -> bool:
        """Whether this is a pass with gradients over images on a GPU and nothing else."""
        return (
            self._module.training
            and torch.is_grad_enabled()
            and not kwargs
            and len(args) == 1
            and isinstance(args[0], Tensor)
            and args[0].is_cuda
            and not args[0].requires_grad
            and not torch.cuda.is_current_stream_capturing()
        )

    def _recorded(self, images: Tensor) -> '_Passes':
        with _unchanged(self._parts, images.device):
            try:
                passes = _Passes(self._parts, [p for p, _ in self._trained], images)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = str(error).partition('\n')[0]
                raise RuntimeError(
                    'cuda_graph: a step of this model cannot be recorded, for something in it is '
                    f'decided in Python anew at every step ({reason}); do without cuda_graph'
                ) from error
        for module in self._parts.modules():
            if isinstance(module, PETLMethod) and (losses := module.all_losses()):
                raise ValueError(
                    f'cuda_graph: {module.title} has a loss of its own ({", ".join(losses)}), '
                    'which would stay that of the step that was recorded; do without one of them'
                )
        return passes

    def _keep_gradients(self) -> None:
        """Moves gradients that are to be added to out of the memory of graphs.

        Autograd leaves a first gradient where it is, which the next step would write over.
        """
        for parameter, _ in self._trained:
            kept = parameter.grad
            if kept is not None and any(
                kept.data_ptr() in passes.places for passes in self._passes.values()
            ):
                parameter.grad = kept.clone()


class Aliased(nn.Module):
    """A module that computes with other tensors in the memory of its parameters.

    Autograd's own nodes for the parameters may belong to the stream of a step that is not done
    with, which a recording must not touch.

    Args:
        parts: The module, and what computes in it.
        parameters: Those parameters of theirs that are learnt.

    Attributes:
        aliases: Leaves for autograd, one a parameter.
    """

    def __init__(self, parts: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        names = {parameter: name for name, parameter in self.named_parameters()}
        self._named = {names[p]: p.detach().requires_grad_() for p in parameters}
        self.aliases = [*self._named.values()]

    def forward(self, images: Tensor) -> Any:
        """What the module itself would do."""
        return self.parts[0]._call_impl(images)

    def compute(self, images: Tensor) -> Any:
        """The same of the aliases."""
        return functional_call(self, self._named, images)


class _Passes:
    """A forward and a backward pass over batches of one shape.

    Attributes:
        places: Where in memory the gradients are.
    """

    def __init__(
        self, parts: nn.ModuleList, parameters: list[nn.Parameter], images: Tensor
    ) -> None:
        self._parameters = parameters
        self._images = images.detach().clone()
        self._awaited: object = None  # the turn whose backward pass may come
        self._of_outputs: list[Tensor] = []
        model = Aliased(parts, parameters)

        def run() -> list[Tensor]:
            # Copies in lower precision that autocast keeps would be those of the first step.
            with torch.autocast(
                'cuda',
                dtype=torch.get_autocast_dtype('cuda'),
                enabled=torch.is_autocast_enabled('cuda'),
                cache_enabled=False,
            ):
                outputs = model.compute(self._images)
            flat, self._structure = tree_flatten(outputs)
            return flat

        def gradients(outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
            learnt = [output for output in outputs if output.requires_grad]
            given = self._of_outputs or learnt
            return torch.autograd.grad(learnt, model.aliases, given, allow_unused=True)

        here, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            gradients(run())
            with _waiting_forbidden():
                for _ in range(_WARM_UPS):
                    gradients(run())
        here.wait_stream(side)

        # Other threads may go on meanwhile: data loaders pin memory, NCCL watches its queue.
        pool, mode = torch.cuda.graph_pool_handle(), 'thread_local'
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with _nothing_collected():
            with torch.cuda.graph(self._forward, pool=pool, capture_error_mode=mode):
                outputs = run()
            self._of_outputs = [torch.zeros_like(o) for o in outputs if o.requires_grad]
            with torch.cuda.graph(self._backward, pool=pool, capture_error_mode=mode):
                self._gradients = gradients(outputs)
        self._learnt = [output.requires_grad for output in outputs]
        self._outputs = [output.detach() for output in outputs]
        self.places = {g.data_ptr() for g in self._gradients if g is not None}

    def __call__(self, images: Tensor) -> Any:
        outputs = _Replay.apply(self, images, *self._parameters)
        return tree_unflatten(list(outputs), self._structure)

    def forward(self, ctx: Any, images: Tensor) -> tuple[Tensor, ...]:
        self._images.copy_(images)
        self._forward.replay()
        ctx.turn = self._awaited = object()
        outputs = tuple(output.detach() for output in self._outputs)
        ctx.mark_non_differentiable(
            *(o for o, learnt in zip(outputs, self._learnt, strict=True) if not learnt)
        )
        return outputs

    def backward(self, ctx: Any, of_outputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        if ctx.turn is not self._awaited:
            raise RuntimeError(
                'cuda_graph: what this backward pass needs has been written over, by another pass '
                'over a batch of this shape: run backward once after each forward pass, or do '
                'without cuda_graph'
            )
        self._awaited = None
        given = [g for g, learnt in zip(of_outputs, self._learnt, strict=True) if learnt]
        for own, gradient in zip(self._of_outputs, given, strict=True):
            own.copy_(gradient)
        self._backward.replay()
        # Tensors of their own, which autograd need not copy.
        return tuple(None if g is None else g.detach() for g in self._gradients)


class _Replay(torch.autograd.Function):
    """Two graphs as one operation of autograd's, whose inputs are the trained parameters."""

    @staticmethod
    def forward(ctx: Any, passes: _Passes, images: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        ctx.passes = passes
        return passes.forward(ctx, images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.passes.backward(ctx, of_outputs)


def use_cuda_graphs(module: nn.Module, *parts: nn.Module) -> CudaGraphs:
    """Lets a module's training passes be recorded as CUDA graphs, and be replayed from then on.

    The first pass over a batch of a shape is recorded, without drawing random numbers or changing
    buffers; it and all that follow compute what they would without, noise included. What is not a
    pass with gradients in training mode over one batch on a GPU is computed as before, and so are
    batches of a third shape. Each forward pass may have one backward pass, before the next.

    What Python decides stays as it was recorded: a model that draws or branches there cannot be
    recorded where it asks the GPU for it, and must not be where it does not. Whatever is attached
    must be by now; parameters may be frozen or moved later.

    Args:
        module: From a batch of images to tensors, in any structure.
        parts: Other modules that compute in it, such as a method that is attached to it and is not
            its child.

    Returns:
        What ends it by ``remove()``.

    Raises:
        RuntimeError: At the first pass: it cannot be recorded.
        ValueError: Blocks are checkpointed; or, at the first pass, a method has a loss of its own.
    """
    for child in nn.ModuleList((module, *parts)).modules():
        if getattr(child, 'with_cp', False) or getattr(child, 'grad_checkpointing', False):
            raise ValueError(
                'cuda_graph: gradient checkpointing (with_cp, set_grad_checkpointing) puts the '
                'generator of random numbers back at every step, which cannot be recorded: do '
                'without one of them'
            )
    # Where Module.compile() puts what it compiles: around the module's hooks, and not copied.
    graphs = CudaGraphs(module, *parts)
    module._compiled_call_impl = graphs
    return graphs


def _same(some: tuple, others: tuple) -> bool:
    return len(some) == len(others) and all(
        a is b and place == other for (a, place), (b, other) in zip(some, others, strict=True)
    )


def _precision() -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """Refuses what waits for the GPU, to read a number from it, before a recording breaks of it."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Collects garbage before, not within: a graph among it, let go, would break a recording."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _unchanged(parts: nn.ModuleList, device: torch.device) -> Iterator[None]:
    """Undoes what passes within it do to buffers and to the generator of random numbers."""
    buffers = list(parts.buffers())
    kept = [buffer.clone() for buffer in buffers]
    drawn = torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        torch.cuda.set_rng_state(drawn, device)
        with torch.no_grad():
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
