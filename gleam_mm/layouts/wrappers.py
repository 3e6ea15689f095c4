"""What torch.compile, DataParallel and averages of weights make of a model: a module around it."""

from torch import nn

_CHILDREN = ('_orig_mod', 'module')
"""What wrappers call the model that is their only child."""


def inside(model: nn.Module) -> tuple[str, nn.Module]:
    """The model in its wrappers.

    Args:
        model: The model, or what wraps it.

    Returns:
        Where it is, such as ``'module._orig_mod'``, which is empty where nothing wraps it; and it.
    """
    path = []
    while len(model._modules) == 1:
        name, child = next(iter(model._modules.items()))
        if name not in _CHILDREN or child is None:
            break
        path.append(name)
        model = child
    return '.'.join(path), model
