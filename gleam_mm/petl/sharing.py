"""A tensor that many sites of a network compute with."""

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
