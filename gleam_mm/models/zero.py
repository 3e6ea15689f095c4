"""Frozen weights that DeepSpeed shares out among processes, or keeps in the host's memory."""

from typing import Any

from torch import Tensor, nn

from gleam_mm.models.sharded import ShardedDataParallel, check_frozen_alike
from gleam_mm.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class ZeroDataParallel(ShardedDataParallel):
    """:class:`ShardedDataParallel` by ZeRO-3 of DeepSpeed instead of PyTorch's FSDP2.

    DeepSpeed sees the backbone alone and no optimizer (what it calls ZeRO-Inference): it shares the
    frozen weights out, and gathers those of a module for as long as it computes, forward and
    backward. What it offers beyond FSDP2 is to keep them in the host's memory or on a disk
    (``offload_param``), for a backbone that no number of GPUs at hand could hold.

    Args:
        module: As of :class:`ShardedDataParallel`; nothing that is trained may be a parameter of
            the backbone itself, for ZeRO-3 shares out all of those.
        zero_optimization: DeepSpeed's section of this name, such as
            ``dict(offload_param=dict(device='cpu'))``. Its stage is 3.
        broadcast_buffers: As in :class:`~torch.nn.parallel.DistributedDataParallel`, like all
            further arguments.

    Raises:
        ImportError: DeepSpeed is not installed.
        ValueError: As :class:`ShardedDataParallel`; parameters of the backbone itself are trained;
            or another stage is asked for.
    """

    def __init__(
        self,
        module: nn.Module,
        zero_optimization: dict[str, Any] | None = None,
        broadcast_buffers: bool = False,
        **kwargs: Any,
    ) -> None:
        self._zero = {'stage': 3, **(zero_optimization or {})}
        super().__init__(module, broadcast_buffers, **kwargs)

    def _share_out(self, model: Any) -> None:
        if self._zero['stage'] != 3:
            raise ValueError(
                f'zero_optimization.stage={self._zero["stage"]}: stages 1 and 2 share out the '
                'state of the optimizer and gradients, which are those of the small adapter; '
                'leave the stage out for 3, which shares out the frozen weights'
            )
        check_frozen_alike(model, 'ZeroDataParallel')
        trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
        if trained:
            raise ValueError(
                f'{model.petl.title} trains parameters of the backbone itself ({trained[0]}), '
                'which ZeroDataParallel would share out: take strategy=fsdp'
            )
        try:
            import deepspeed
        except ImportError as error:
            raise ImportError(
                f'ZeroDataParallel needs DeepSpeed: pip install deepspeed ({error})'
            ) from error
        engine, *_ = deepspeed.initialize(
            model=model.backbone,
            config=dict(train_micro_batch_size_per_gpu=1, zero_optimization=self._zero),
            dist_init_required=False,
        )
        # In a tuple, or its parameters would be this module's as well. It takes its hooks away
        # where nothing holds it.
        self._engine = (engine,)

    def train_step(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Trains one step, after which no frozen weight is whole.

        DeepSpeed shares a module's weights out again when gradients have passed through it. None
        pass through those that come before the first adapter.
        """
        losses = super().train_step(*args, **kwargs)
        self._engine[0].optimizer.partition_all_parameters()
        return losses
