"""Running statistics of norms: those of a frozen norm stay as they are while others train."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from gleam_mm.models.trained import learning


class Stilled:
    """Keeps a norm in evaluation, whatever its model's mode, until :meth:`remove` is called.

    ``train()`` of the model asks it in the norm's place, and so does who estimates statistics anew,
    as ``update_bn`` of PyTorch does; ``copy.deepcopy`` and ``pickle`` take it along.

    Args:
        norm: The norm.
    """

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm
        self._mode = norm.training
        norm.eval()
        vars(norm).update(train=self, reset_running_stats=self._keep)

    def __call__(self, mode: bool = True) -> nn.Module:
        """What ``norm.train(mode)`` does meanwhile: remembers the mode."""
        self._mode = mode
        return self.norm

    def remove(self) -> None:
        """Gives the norm the mode that it would have."""
        for name in ('train', 'reset_running_stats'):
            del vars(self.norm)[name]
        self.norm.train(self._mode)

    def _keep(self) -> None:
        """What ``norm.reset_running_stats()`` does meanwhile: nothing."""


class Stillness:
    """Keeps norms of a model in evaluation, and those that come in their places.

    ``convert_sync_batchnorm`` of PyTorch, of timm and of MMEngine puts new norms there, in the mode
    of the old ones: ``train()`` of the model is the first that could set them moving, and stills
    them.

    Args:
        model: The model.
        norms: The names of the norms.
    """

    def __init__(self, model: nn.Module, norms: Iterable[str]) -> None:
        self._model = model
        self._stilled = {name: Stilled(model.get_submodule(name)) for name in norms}
        vars(model)['train'] = self

    def __call__(self, mode: bool = True) -> Any:
        """What ``model.train(mode)`` does meanwhile."""
        result = type(self._model).train(self._model, mode)
        norms = dict(self._model.named_modules())
        for name, stilled in self._stilled.items():
            norm = norms.get(name)
            if norm is not stilled.norm and isinstance(norm, _NormBase):
                stilled.remove()
                self._stilled[name] = Stilled(norm)
        return result

    def remove(self) -> None:
        """Gives the model its own ``train()`` back, and the norms the modes that are due."""
        del vars(self._model)['train']
        for stilled in self._stilled.values():
            stilled.remove()


def still(model: nn.Module) -> Stillness | None:
    """Keeps the norms in evaluation whose statistics are frozen, as MMPretrain's frozen stages do.

    In training mode a BatchNorm would count each batch into its statistics, frozen or not: other
    weights than those that the file of a method belongs to.

    Args:
        model: The model, whose parameters have ``requires_grad`` where they are trained.

    Returns:
        What undoes it, or None where there is no such norm.
    """
    learnt = learning(model)
    if all_learn(model, learnt):
        return None
    names = [name for name, _, learns in _norms(model, learnt) if not learns]
    return Stillness(model, names) if names else None


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
