"""Whether a graph is being made of a model, for batches of any size."""

import torch


def exporting() -> bool:
    """Whether ``torch.export`` or TorchScript follows what is computed.

    What depends on numbers of images or on values has to be computed in another way then.
    """
    # torch 2.6 does not tell an export from a compilation.
    told = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)
    return torch.jit.is_tracing() or told()
