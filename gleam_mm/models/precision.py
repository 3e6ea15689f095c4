"""Attention in single precision where PyTorch's half-precision kernel loses by it."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class SinglePrecisionAttention(TorchFunctionMode):
    """Within it, ``F.scaled_dot_product_attention`` computes in float32, whatever it is given.

    The result has the type of the queries that autocast would have made.
    """

    def __torch_function__(
        self,
        func: Callable,
        types: Iterable[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        half = torch.get_autocast_dtype('cpu')
        with torch.autocast('cpu', enabled=False):
            return func(*map(_single, args), **{k: _single(v) for k, v in kwargs.items()}).to(half)


def attention_context() -> AbstractContextManager:
    """What a backbone runs in: on a CPU under autocast, :class:`SinglePrecisionAttention`.

    There, the fused kernel takes up to three times as long in bfloat16 as in float32 where a
    gradient is wanted, and is not faster for any length (``benchmarks/attention.py``), while the
    Linears around it gain by bfloat16.
    """
    if torch.compiler.is_compiling() or not torch.is_autocast_enabled('cpu'):
        return nullcontext()
    return SinglePrecisionAttention()


def _single(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if floating else value
