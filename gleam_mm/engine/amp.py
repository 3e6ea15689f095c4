"""Automatic mixed precision on whatever device there is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from gleam_mm.registry import OPTIM_WRAPPERS


class _FloatAttention(TorchFunctionMode):
    """Computes fused attention without a mask in float32, whose backward pass is much faster.

    Measured with torch 2.13 on a CPU with AMX, forward and backward: 5 ms instead of 24 ms for 32
    images of 65 tokens in 4 heads of 32, 21 ms instead of 25 ms for 4 of 197 in 12 heads of 64.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        masked = len(args) != 3 or kwargs.get('attn_mask') is not None
        if func is not scaled_dot_product_attention or masked or args[0].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        with torch.autocast('cpu', enabled=False):
            return func(*(x.float() for x in args), **kwargs).bfloat16()


class CPUAmpOptimWrapper(OptimWrapper):
    """Mixed precision on the CPU: bfloat16, whose range is that of float32: no loss is scaled.

    Args:
        loss_scale: Ignored; here so that a config for GPUs runs.
        dtype: ``'bfloat16'`` or None.
        use_fsdp: Ignored like ``loss_scale``.
        **kwargs: As in :class:`mmengine.optim.OptimWrapper`.

    Raises:
        ValueError: ``dtype`` is another type.
    """

    def __init__(
        self,
        loss_scale: Any = None,
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ) -> None:
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise ValueError(
                f"optim_wrapper.dtype={dtype}: mixed precision on the CPU is 'bfloat16' only"
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Runs the forward pass in bfloat16."""
        with (
            super().optim_context(model),
            torch.autocast('cpu', torch.bfloat16),
            _FloatAttention(),
        ):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads the state of the optimizer, without the loss scaler of a run on a GPU."""
        super().load_state_dict(
            {key: value for key, value in state_dict.items() if key != 'loss_scaler'}
        )


# Under MMEngine's own name, so that `type='AmpOptimWrapper'` and `--amp` work everywhere.
@OPTIM_WRAPPERS.register_module(name='AmpOptimWrapper')
class DeviceAmpOptimWrapper:
    """Makes MMEngine's ``AmpOptimWrapper`` or, where it refuses, :class:`CPUAmpOptimWrapper`.

    A class, since configs can write down nothing else for a type.
    """

    def __new__(cls, **kwargs: Any) -> OptimWrapper:
        """Builds the one of them that the device needs."""
        return (CPUAmpOptimWrapper if get_device() == 'cpu' else AmpOptimWrapper)(**kwargs)
