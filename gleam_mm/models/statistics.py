"""Running statistics of norms: those of a frozen norm stay as they are while others train."""

from collections.abc import Collection, Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from gleam_mm.models.trained import learning


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
    names = learning(model)
    if all_learn(model, names):
        return []
    return [Stilled(norm) for _, norm, learns in _norms(model, names) if not learns]


def all_learn(model: nn.Module, names: Collection[str]) -> bool:
    """Whether every parameter is trained; then all statistics move with them.

    Args:
        model: The model.
        names: The parameters that are trained.
    """
    return all(name in names for name, _ in model.named_parameters())


def learning_statistics(model: nn.Module, names: Collection[str]) -> set[str]:
    """The names of the statistics that move: of norms of which every parameter is trained.

    One that learns its bias alone (BitFit) does so on the statistics of the frozen weights.

    Args:
        model: The model.
        names: The parameters that are trained.
    """
    return {
        _inside(name, key)
        for name, norm, learns in _norms(model, names)
        if learns
        for key, _ in norm.named_buffers(recurse=False)
    }


def _norms(model: nn.Module, names: Collection[str]) -> Iterator[tuple[str, nn.Module, bool]]:
    """The norms with running statistics: name, norm, and whether all parameters of it learn."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.running_mean is not None:
            own = [_inside(name, key) in names for key, _ in module.named_parameters(recurse=False)]
            yield name, module, bool(own) and all(own)


def _inside(module: str, key: str) -> str:
    return f'{module}.{key}' if module else key
