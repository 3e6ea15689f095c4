"""What a pass does, counted and not timed: its arithmetic, and its calls of kernels."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    conv_flop_count,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

_ATEN = torch.ops.aten


def _addmm(added: Tensor, left: Tensor, right: Tensor, **_: Any) -> int:
    return 2 * left.numel() * right.shape[1]


def _mv(matrix: Tensor, vector: Tensor, **_: Any) -> int:
    return 2 * matrix.numel()


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any, **_: Any) -> int:
    # For each of the two gradients every weight meets the numbers that it meets forwards.
    *_, transposed, _, _, (of_x, of_weight, _) = rest
    return conv_flop_count(x.shape, weight.shape, grad.shape, transposed) * (of_x + of_weight)


_FORMULAS = flop_registry | {
    _ATEN.addmm_: _addmm,
    _ATEN.mv: _mv,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _ATEN.convolution_backward: _convolution_backward,
}
"""PyTorch's own know neither products that are accumulated in place, nor attention on a CPU, and
take the gradient of a grouped convolution's weights for as many times what it is as there are
groups."""


class Arithmetic(TorchDispatchMode):
    """Counts multiplications and additions of matrix products, attention and convolutions.

    Attributes:
        total: Two for each multiplication with its addition, of all passes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if formula := _FORMULAS.get(func._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=result)
        return result


_WITHOUT_KERNELS = (
    _ATEN.empty,
    _ATEN.empty_like,
    _ATEN.empty_strided,
    _ATEN.new_empty,
    _ATEN.new_empty_strided,
    _ATEN._unsafe_view,
    _ATEN._local_scalar_dense,
)
"""What launches nothing and does not say so, as a view does: memory alone, and a number read."""


class Calls(TorchDispatchMode):
    """Counts calls of kernels, of which a view is none, and notes the memory that they take."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self._taken: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        aliases = [value.alias_info for value in func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in aliases)
        self.number += not view and func._overloadpacket not in _WITHOUT_KERNELS
        result = func(*args, **(kwargs or {}))
        for value in pytree.tree_leaves(result):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self._taken[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def kept(self, model: nn.Module) -> int:
        """Bytes that are still in use, but for the model's own."""
        own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
        return sum(
            size
            for number, (storage, size) in self._taken.items()
            if number not in own and not storage.expired()
        )
