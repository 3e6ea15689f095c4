"""Whether a graph is being made of a model, for batches of any size."""

import torch


def exporting() -> bool:
    """Whether ``torch.export`` or TorchScript follows what is computed.

    What depends on numbers of images or on values has to be computed in another way then.
    """
    return torch.jit.is_tracing() or torch.compiler.is_exporting()
