"""A tensor that many sites of a network compute with, or is made of what they have."""

from collections.abc import Sequence

import torch
from torch import Tensor


def lowered(tensor: Tensor) -> Tensor:
    """A tensor in the precision of products of matrices, which autocast may have lowered."""
    if tensor.is_meta:  # a device that autocast does not know
        return tensor
    device = tensor.device.type
    if torch.is_autocast_enabled(device) and tensor.dtype is torch.float32:
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor


def for_each(tensor: Tensor, count: int) -> tuple[Tensor, ...]:
    """As many of a tensor: its gradients are summed at once, where autograd adds one to another.

    Under mixed precision, they are lowered already, instead of by each of their users.
    """
    tensor = lowered(tensor)
    return tensor.expand(count, *tensor.shape).unbind() if count > 1 else (tensor,)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as one, whose gradients lie in memory as they do.

    So autograd keeps them for its parameters; others, it would copy one by one.
    """
    stack = torch.stack(tuple(tensors))
    if stack.requires_grad and not torch.compiler.is_compiling():
        stack.register_hook(Tensor.contiguous)
    return stack
