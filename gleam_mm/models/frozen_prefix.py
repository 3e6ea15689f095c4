"""The part of a frozen backbone that gives the same for an image all through a training."""

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gleam_mm.layouts import ForwardReplacement
from gleam_mm.petl import PETLMethod


class _Reached(Exception):
    """The end of the prefix is reached; the rest of the pass is not needed."""


class FrozenPrefix:
    """What comes before the first block that is trained, or the whole backbone where none is.

    :meth:`features` computes it, and within :meth:`resumed` the backbone goes on from there. Where
    a side path reads the blocks before (:class:`~gleam_mm.petl.DTL`), what they read belongs to the
    features as well. The end of the prefix is found by autograd: it is the first block whose output
    depends on what is trained. What it gives is proved to be the same on a batch, with its
    gradients.

    Args:
        backbone: A frozen backbone with its method.
        method: The method.
        images: A batch as the backbone reads it, in the mode and precision of the training.

    Attributes:
        start (int | None): Index of the first block that is computed, None if none is.

    Raises:
        ValueError: There is nothing before the first block that is trained; or it has dropout or
            another state, so that it gives an image something else each time; or the method reads
            something of it that cannot be kept.
    """

    def __init__(self, backbone: nn.Module, method: PETLMethod, images: Tensor) -> None:
        layout = method.layout
        self._backbone = backbone
        sites = [] if layout.no_blocks else layout.sites(('block',))
        self._blocks: list[Any] = [site.module for site in sites]
        self._image_shape = images.shape[1:]
        self._spec: Any = None
        read = {
            site.block
            for member in method.members()
            for site in member.sites.values()
            if site.role == 'block'
        }
        self.start = self._first(images)
        # Places among the blocks whose inputs are kept.
        self._kept = [i for i in range(self.start or 0) if i in read]
        if self.start is not None:
            self._kept.append(self.start)
        self._require_constant(images)
        self._require_same(images, method)

    def features(self, images: Tensor) -> list[Tensor]:
        """What the prefix gives for images: tensors whose first axis is theirs."""
        with torch.no_grad():
            if self.start is None:
                leaves, self._spec = pytree.tree_flatten(self._backbone(images))
                return leaves
            caught: list[Tensor] = []

            def catch(last: bool, module: nn.Module, args: tuple) -> None:
                caught.append(args[0])
                if last:
                    raise _Reached

            handles = [
                self._blocks[i].register_forward_pre_hook(
                    partial(catch, i == self.start), prepend=True
                )
                for i in self._kept
            ]
            try:
                self._backbone(images)
            except _Reached:
                return caught
            finally:
                for handle in handles:
                    handle.remove()
            raise RuntimeError('the backbone has not called its blocks')

    @contextmanager
    def resumed(self, features: Sequence[Tensor]) -> Iterator[Tensor]:
        """Within it, the backbone computes what comes after features.

        Args:
            features: Those of a batch, as :meth:`features` gives them.

        Yields:
            What to call the backbone with in the place of images.
        """
        handles: list[Any] = []
        try:
            if self.start is None:
                output = pytree.tree_unflatten(list(features), self._spec)
                handles.append(ForwardReplacement(self._backbone, partial(_given, output)))
            else:
                for block in self._blocks[: self.start]:
                    handles.append(ForwardReplacement(block, _passed_on))
                for place, x in zip(self._kept, features, strict=True):
                    handles.append(
                        self._blocks[place].register_forward_pre_hook(
                            partial(_instead, x), prepend=True
                        )
                    )
            # Its values are read by nothing but patch embeddings, whose output is replaced.
            blank = features[0].new_zeros((1, *self._image_shape), dtype=torch.float32)
            yield blank.expand(len(features[0]), *self._image_shape)
        finally:
            for handle in handles:
                handle.remove()

    def _first(self, images: Tensor) -> int | None:
        """The first block that has to be computed, by what depends on trained parameters."""
        reads: list[bool] = []  # whether what comes to a block depends on what is trained
        gives: list[bool] = []

        def come(module: nn.Module, args: tuple) -> None:
            reads.append(_learns(args))

        def go(module: nn.Module, args: tuple, output: Any) -> None:
            gives.append(_learns(output))

        handles = [b.register_forward_pre_hook(come, prepend=True) for b in self._blocks]
        handles += [block.register_forward_hook(go) for block in self._blocks]
        try:
            with torch.enable_grad():
                output = self._backbone(images)
        finally:
            for handle in handles:
                handle.remove()
        if not _learns(output):
            return None
        if not len(reads) == len(gives) == len(self._blocks) > 0:
            raise ValueError(
                'the backbone does not call its blocks one by one, so that nothing before the '
                'first that is trained can be kept'
            )
        first = gives.index(True) if any(gives) else len(gives) - 1
        if reads[first]:
            first -= 1  # something between the blocks is trained
        if first <= 0:
            raise ValueError(
                'the method trains the first block, or what comes before it, so that there is '
                'nothing that stays the same: let it adapt the last blocks alone, such as '
                'model.petl.blocks=[-2,-1]'
            )
        return first

    def _require_constant(self, images: Tensor) -> None:
        """Refuses a prefix that draws random numbers or changes its buffers, as in training."""
        modes = {module: module.training for module in self._backbone.modules()}
        versions = {name: buffer._version for name, buffer in self._backbone.named_buffers()}
        before = random_states(images.device)
        found = self.features(images)
        if any(a != b for a, b in zip(before, random_states(images.device), strict=True)):
            raise ValueError(
                'the backbone drops out at random in training, and gives an image other features '
                'each time: set its drop rates to 0, such as model.backbone.drop_path_rate=0'
            )
        changed = [n for n, b in self._backbone.named_buffers() if b._version != versions[n]]
        if changed:
            raise ValueError(
                f'the backbone changes its {changed[0]!r} while it trains, so that its features '
                'depend on what came before'
            )
        try:
            self._backbone.eval()
            still = self.features(images)
        finally:
            for module, training in modes.items():
                module.training = training
        if not _equal(found, still):
            raise ValueError('the backbone gives other features in training than in evaluation')

    def _require_same(self, images: Tensor, method: PETLMethod) -> None:
        """Refuses where going on from features gives other outputs or gradients than from images.

        A method starts with parameters of zero that let nothing through: it is moved off them.
        """
        trained = [p for p in self._backbone.parameters() if p.requires_grad]
        trained += [p for p in method.parameters() if p.requires_grad]
        buffers = [(buffer, buffer.clone()) for buffer in method.buffers()]
        starts = [parameter.detach().clone() for parameter in trained]
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices):
            with torch.no_grad():
                for parameter in trained:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            try:
                expected = self._pass(lambda: self._backbone(images), trained, buffers)
                features = self.features(images)
                with self.resumed(features) as blank:
                    computed = self._pass(lambda: self._backbone(blank), trained, buffers)
            finally:
                with torch.no_grad():
                    for parameter, start in zip(trained, starts, strict=True):
                        parameter.copy_(start)
        for a, b in zip(expected, computed, strict=True):
            if not _close(a, b):
                raise ValueError(
                    f'{method.title} reads something before the first block that it changes, which '
                    'cannot be kept'
                )

    @staticmethod
    def _pass(
        run: Callable[[], Any], trained: Sequence[Tensor], buffers: Sequence[tuple[Tensor, Tensor]]
    ) -> list[Tensor | None]:
        """Outputs, and gradients of a function of them, with the buffers put back before."""
        torch.manual_seed(0)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        with torch.enable_grad():
            outputs = [leaf for leaf in pytree.tree_leaves(run()) if isinstance(leaf, Tensor)]
            learning = [leaf for leaf in outputs if leaf.requires_grad]
            gradients: Sequence[Tensor | None] = ()
            if learning:
                loss = torch.stack([leaf.float().square().mean() for leaf in learning]).sum()
                gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        return [*(leaf.detach() for leaf in outputs), *gradients]


class Cached(NamedTuple):
    """What a model reads instead of images.

    Attributes:
        prefix: What made the features.
        features: Those of a batch.
    """

    prefix: FrozenPrefix
    features: list[Tensor]


def _given(output: Any, *args: Any, **kwargs: Any) -> Any:
    return output


def _passed_on(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x


def _instead(x: Tensor, module: nn.Module, args: tuple) -> tuple:
    return x, *args[1:]


def _learns(tree: Any) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in pytree.tree_leaves(tree))


def random_states(device: torch.device) -> list[bytes]:
    """The states of Python's, NumPy's and PyTorch's generators, which any draw changes."""
    states = [torch.get_rng_state()]
    if device.type == 'cuda':
        states.append(torch.cuda.get_rng_state(device))
    own = pickle.dumps((random.getstate(), np.random.get_state()))
    return [*(state.numpy().tobytes() for state in states), own]


def _equal(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _close(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    scale = a.abs().max().item() if a.numel() else 0.0
    tolerance = 1e-2 if a.dtype in (torch.float16, torch.bfloat16) else 1e-4
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale)
