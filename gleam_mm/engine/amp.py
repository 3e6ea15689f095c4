"""Automatic mixed precision on whatever device there is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from gleam_mm.registry import OPTIM_WRAPPERS


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
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
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
