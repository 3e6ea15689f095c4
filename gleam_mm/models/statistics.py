"""Running statistics of norms: those of a frozen norm stay as they are while others train."""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


class Stilled:
    """Keeps a module in evaluation, whatever its model's mode, until :meth:`remove` is called.

    ``train()`` of the model asks it in the module's place; ``copy.deepcopy`` and ``pickle`` take it
    along.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._mode = module.training
        module.eval()
        vars(module)['train'] = self

    def __call__(self, mode: bool = True) -> nn.Module:
        """What ``module.train(mode)`` does meanwhile: remembers the mode."""
        self._mode = mode
        return self._module

    def remove(self) -> None:
        """Gives the module the mode that it would have."""
        del vars(self._module)['train']
        self._module.train(self._mode)


def still(model: nn.Module) -> list[Stilled]:
    """Keeps the norms in evaluation whose statistics are frozen, as MMPretrain's frozen stages do.

    In training mode a BatchNorm would count each batch into its statistics, frozen or not: other
    weights than those that the file of a method belongs to.

    Args:
        model: The model, whose parameters have ``requires_grad`` where they are trained.
    """
    if all_learn(model):
        return []
    return [Stilled(norm) for _, norm, learns in _norms(model) if not learns]


def all_learn(model: nn.Module) -> bool:
    """Whether every parameter is trained; then all statistics move with them."""
    return all(parameter.requires_grad for parameter in model.parameters())


def learning_statistics(model: nn.Module) -> set[str]:
    """The names of the statistics that move: of norms of which every parameter is trained.

    One that learns its bias alone (BitFit) does so on the statistics of the frozen weights.
    """
    return {
        f'{name}.{key}' if name else key
        for name, norm, learns in _norms(model)
        if learns
        for key, _ in norm.named_buffers(recurse=False)
    }


def _norms(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """The norms with running statistics: name, norm, and whether all parameters of it learn."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.running_mean is not None:
            own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
            yield name, module, bool(own) and all(own)
