"""Frozen weights that processes share out: each keeps a part, and borrows the rest to compute."""

from typing import Any

from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_world_size
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._pytree import tree_map_only

from gleam_mm.models.adapted import Adapted
from gleam_mm.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class ShardedDataParallel(MMDistributedDataParallel):
    """``DistributedDataParallel`` of what is trained, with a frozen backbone that is sharded.

    By :func:`torch.distributed.fsdp.fully_shard` (FSDP2) each process keeps its part of every
    frozen weight, and has a block whole for as long as it computes, forward and backward. Frozen
    weights have no gradients and no state in the optimizer, so nothing else would be worth it: what
    is trained is small. It stays whole in every process, and its gradients are averaged as always.
    So optimizer, checkpoints and adapter files are those of one process, and a training goes on
    with any number of them.

    Args:
        module: A model with a frozen, adapted backbone, such as a
            :class:`~gleam_mm.models.PETLClassifier`. On whatever device: its frozen weights come to
            that of the process block by block.
        broadcast_buffers: As in :class:`~torch.nn.parallel.DistributedDataParallel`, like all
            further arguments.

    Raises:
        ValueError: Nothing of the backbone is frozen, it is quantised, the processes have other
            frozen weights, or the method computes from the whole backbone before the training.
    """

    def __init__(self, module: nn.Module, broadcast_buffers: bool = False, **kwargs: Any) -> None:
        self._share_out(module)
        frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
        self._set_params_and_buffers_to_ignore_for_model(module, frozen)
        super().__init__(
            module=module.to(get_device()), broadcast_buffers=broadcast_buffers, **kwargs
        )

    def _share_out(self, model: Any) -> None:
        """Takes from this process what it need not keep of the frozen weights."""
        shard(model)


def shard(model: Any) -> None:
    """Shards the frozen weights of a model's backbone among all processes, block by block.

    Raises:
        ValueError: As :class:`ShardedDataParallel`.
    """
    check_frozen_alike(model, 'ShardedDataParallel')
    # Scalars cannot be shared out.
    whole = {p for p in model.backbone.parameters() if p.requires_grad or p.dim() == 0}
    mesh = init_device_mesh(get_device(), (get_world_size(),))
    blocks = [site.module for site in model.petl.layout.sites(('block',))]
    for module in (*blocks, model.backbone):
        module.register_forward_hook(_without_views)
        # Nothing stays whole after a pass without a backward one: a process that saves a checkpoint
        # alone would give it up alone, and gather it again without the others.
        fully_shard(module, mesh=mesh, ignored_params=whole, reshard_after_forward=True)


def _without_views(module: nn.Module, args: tuple, output: Any) -> Any:
    """Copies views: changed in place, they would lose what gathers the weights for gradients."""
    return tree_map_only(Tensor, lambda x: x.clone() if x._is_view() else x, output)


def check_frozen_alike(model: Any, wrapper: str) -> None:
    """Refuses a model whose frozen weights cannot be shared out among the processes.

    Args:
        model: What is to be wrapped. Its fingerprint is computed, while its weights are whole.
        wrapper: What wraps it, for the message.

    Raises:
        ValueError: As :class:`ShardedDataParallel`.
    """
    if not isinstance(model, Adapted):
        raise ValueError(
            f'{wrapper} shards a frozen backbone, and {type(model).__name__} has none: '
            'leave model_wrapper_cfg out'
        )
    frozen = [p for p in model.backbone.parameters() if not p.requires_grad]
    if not frozen:
        raise ValueError(
            f'{model.petl.title} trains the whole backbone, and {wrapper} shards what is '
            'frozen: leave model_wrapper_cfg out'
        )
    for parameter in frozen:
        if type(parameter) is not nn.Parameter or not parameter.is_floating_point():
            raise ValueError(
                f'{wrapper} does not shard quantised weights: leave model_wrapper_cfg '
                'out, or build the backbone in floating point'
            )
    for member in model.petl.members():
        if member.calibrates:
            raise ValueError(
                f'{member.title} looks at the whole backbone before it trains, which '
                f'{wrapper} has shared out: leave model_wrapper_cfg out'
            )
    model.pin_fingerprint()
    found = all_gather_object(model.backbone_fingerprint())
    if len({*found}) > 1:
        raise ValueError(
            'the processes have backbones of other weights, which cannot be shared out: give all '
            'machines the same file of weights'
        )
