"""Adapters of one kind, which have one method's config in common: they run in one pass."""

import copy
import threading
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Row = dict[torch.dtype, Tensor]
"""The numbers of one adapter: one vector for all its tensors of a type."""

GATHERED_BYTES = 2**28
"""How much the numbers of all images of one pass may take, beside the adapters themselves."""

_TOLERANCE = 1e-5
_ALIGNMENT = 64  # bytes, where PyTorch's own tensors begin: the arithmetic is the same to the bit

_IMAGE_BY_IMAGE = 'There is a performance drop because we have not yet implemented'
"""What PyTorch warns of. Attention on the CPU runs image by image, and so does a product that is
added in place: both are as fast as a batched one there."""


class _Slot(NamedTuple):
    """Where a tensor stands in the row."""

    name: str
    dtype: torch.dtype
    start: int
    shape: torch.Size
    trained: bool


class _Trunk(nn.Module):
    """A model up to its pooled features, which a head classifies."""

    def __init__(self, model: nn.Module, features: Callable[[Any, Tensor], tuple]) -> None:
        super().__init__()
        self.model = model
        self.features = features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.features(self.model, images)


class _Linear(torch.autograd.Function):
    """A Linear of which only the input differs by image: one operation for all images.

    Left to itself, ``torch.vmap`` multiplies, and adds the bias in a pass over memory of its own.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Keeps nothing: no gradient is ever asked for."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, int]:
        return F.linear(x.movedim(in_dims[0], 0), weight, bias), 0


class _WholeLinears(TorchFunctionMode):
    """Within it, Linears whose parameters are a model's own compute by :class:`_Linear`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._own = set(map(id, model.parameters()))  # what adapters lend is not among them

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is F.linear and not kwargs and len(args) == 3:
            x, weight, bias = args
            if id(weight) in self._own and (bias is None or id(bias) in self._own):
                return _Linear.apply(x, weight, bias)
        return func(*args, **(kwargs or {}))


class Kind:
    """What runs images under several adapters with the same tensors.

    The model is a skeleton: its backbone's weights are those of the bank, and each pass lends it
    the tensors of adapters. In a mixed pass every image has its own, stacked by image: the model is
    mapped over both (``torch.vmap``), which makes one batched product of each of the adapters'
    products and leaves those of the frozen weights what they are. So whatever a method does is
    batched, as far as PyTorch can batch it; where it cannot, as the first pass finds out, and where
    the stack would be large, images run in groups by adapter.

    Args:
        model: The model in evaluation mode, with a method and without a head.
        features: Gives the pooled features of a batch, as heads take them.
        names: The model's own names of what adapters hold, parameters and buffers.
        image_shape: The shape of an image.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Callable[[Any, Tensor], tuple],
        names: Collection[str],
        image_shape: Sequence[int],
    ) -> None:
        self.model = model.requires_grad_(False)
        self._lent, self._loading = threading.Lock(), threading.Lock()
        self._loader: Any = _copy_but(model, names)  # what reads adapters does not wait for passes
        self._trunk = _Trunk(model, features)
        self._slots = []
        sizes: dict[torch.dtype, int] = {}
        for name, tensor in _tensors(model, names).items():
            start = sizes.get(tensor.dtype, 0)
            trained = isinstance(tensor, nn.Parameter)
            self._slots.append(_Slot(f'model.{name}', tensor.dtype, start, tensor.shape, trained))
            step = _ALIGNMENT // tensor.dtype.itemsize
            sizes[tensor.dtype] = start + -(-tensor.numel() // step) * step
        self._sizes = sizes
        self.row_bytes = sum(size * dtype.itemsize for dtype, size in sizes.items())
        self.width, self.batches = self._prove(image_shape)

    def load(self, check: Callable[[Any], Mapping[str, Tensor]]) -> Row:
        """The row of an adapter.

        Args:
            check: Compares the adapter with a model like the skeleton, to which nothing is lent,
                and gives its tensors by their names in the model's state dict.

        Raises:
            RuntimeError: The method refuses them, or what ``check`` raises.
        """
        names = [slot.name.removeprefix('model.') for slot in self._slots]
        with self._loading:
            state = check(self._loader)
            # By the method, which may pack what it saves, and checks what it loads.
            self._loader.petl.load_state_dict(
                {n.removeprefix('petl.'): t for n, t in state.items() if n.startswith('petl.')}
            )
            own = _tensors(self._loader, names)
            return self._pack({n: own[n] if n.startswith('petl.') else state[n] for n in names})

    @torch.no_grad()
    def features(self, images: Tensor, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """The pooled features of images, each under its own adapter.

        Args:
            images: Of shape (B, C, H, W).
            rows: The B adapters; images that share one have the very same object.

        Returns:
            What heads take: tensors whose first dimension is B.
        """
        with self._lent:
            if not self._slots or all(row is rows[0] for row in rows):
                return self._alone(images, rows[0])
            if not self.batches:
                return self._by_adapter(images, rows)
            together = GATHERED_BYTES // self.row_bytes
            parts = [
                self._mixed(images[start : start + together], rows[start : start + together])
                for start in range(0, len(rows), together)
            ]
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def _alone(self, images: Tensor, row: Row) -> tuple[Tensor, ...]:
        own = self._named(row)
        for slot in self._slots:  # products of what is trained are summed in an order of their own
            own[slot.name].requires_grad_(slot.trained)
        return self._call(own, images)

    def _mixed(self, images: Tensor, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        stacked = {dtype: torch.stack([row[dtype] for row in rows]) for dtype in rows[0]}
        with _WholeLinears(self.model), warnings.catch_warnings():
            warnings.filterwarnings('ignore', _IMAGE_BY_IMAGE)
            found = torch.vmap(lambda own, image: self._call(own, image[None]))(
                self._named(stacked), images
            )
        return tuple(tensor.squeeze(1) for tensor in found)

    def _call(self, own: dict[str, Tensor], images: Tensor) -> tuple[Tensor, ...]:
        return torch.func.functional_call(self._trunk, own, (images,))

    def _by_adapter(self, images: Tensor, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        groups: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(id(row), []).append(index)
        parts = [self._alone(images[group], rows[group[0]]) for group in groups.values()]
        order = torch.tensor([index for group in groups.values() for index in group]).argsort()
        return tuple(torch.cat(part)[order.to(images.device)] for part in zip(*parts, strict=True))

    def _pack(self, tensors: Mapping[str, Tensor]) -> Row:
        """The numbers of tensors, with which the row shares no memory."""
        row = {
            dtype: torch.zeros(size, dtype=dtype, device=next(self.model.parameters()).device)
            for dtype, size in self._sizes.items()
        }
        for name, view in self._named(row).items():
            view.copy_(tensors[name.removeprefix('model.')].detach())
        return row

    def _named(self, row: Row) -> dict[str, Tensor]:
        """The tensors of a row, or of several that are stacked, as views."""
        return {
            slot.name: row[slot.dtype]
            .narrow(-1, slot.start, slot.shape.numel())
            .view((*row[slot.dtype].shape[:-1], *slot.shape))
            for slot in self._slots
        }

    @torch.no_grad()
    def _prove(self, image_shape: Sequence[int]) -> tuple[int, bool]:
        """The width of features, and whether two adapters in one pass give what each gives."""
        names = [slot.name.removeprefix('model.') for slot in self._slots]
        own = self._pack(_tensors(self.model, names))
        generator = torch.Generator().manual_seed(0)
        other = {
            dtype: _moved(numbers, generator) if dtype.is_floating_point else numbers.clone()
            for dtype, numbers in own.items()
        }
        parameter = next(self.model.parameters())
        images = torch.randn(2, *image_shape, generator=generator).to(parameter)
        alone = [
            self._alone(image[None], row) for image, row in zip(images, (own, other), strict=True)
        ]
        width = alone[0][-1].shape[-1]
        if not self._slots or 2 * self.row_bytes > GATHERED_BYTES:
            return width, not self._slots
        try:
            mixed = self._mixed(images, [own, other])
        except Exception:  # every operation without a rule has its own way to refuse
            return width, False
        pairs = zip(mixed, map(torch.cat, zip(*alone, strict=True)), strict=True)
        return width, all(
            torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * b.abs().max().item())
            for a, b in pairs
        )


def _moved(numbers: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(len(numbers), generator=generator).to(numbers)
    return torch.where(numbers.isfinite(), numbers + 0.01 * noise, numbers)


def _tensors(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """A model's own parameters and buffers of these names."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: own[name] for name in sorted(names)}


def _copy_but(model: nn.Module, names: Collection[str]) -> nn.Module:
    """A copy of a model that shares all tensors with it but those of these names."""
    own = {id(tensor) for tensor in _tensors(model, names).values()}
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(t): t for t in tensors if id(t) not in own})


def sharing(module: nn.Module) -> nn.Module:
    """A copy of a module's tree that has the very same parameters and buffers."""
    return _copy_but(module, ())
