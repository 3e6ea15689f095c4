"""The precision in which a CPU computes a backbone under autocast: the one that it is fast in."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MULTIPLIES_BFLOAT16 = (
    torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
)
"""Whether PyTorch has fast products of bfloat16 for this CPU: oneDNN's, on x86 for AVX-512."""


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


def fast_precision() -> AbstractContextManager:
    """What a backbone runs in. Without autocast on a CPU, that changes nothing.

    Where PyTorch has no fast products in bfloat16 for the CPU, autocast is off, with a warning:
    they take 8 times as long as in float32, and with their gradients 15 to 45 times (AVX2).

    Where it has some, :class:`SinglePrecisionAttention`: the fused kernel takes up to three times
    as long in bfloat16 as in float32 where a gradient is wanted, and is not faster for any length,
    while the Linears around it gain by bfloat16. ``benchmarks/precision.py`` measures both.
    """
    if not torch.is_autocast_enabled('cpu'):
        return nullcontext()
    compiling = torch.compiler.is_compiling()
    if not MULTIPLIES_BFLOAT16:
        if not compiling:
            warnings.warn(
                'This CPU has no fast products in bfloat16: under --amp (AmpOptimWrapper, '
                'test_cfg.fp16) the backbone computes in float32, which is faster here',
                stacklevel=2,
            )
        return torch.autocast('cpu', enabled=False)
    return nullcontext() if compiling else SinglePrecisionAttention()


def _single(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if floating else value
