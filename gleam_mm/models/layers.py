"""The layers that a model of timm tells of its parameters, and those of a method in it."""

from collections.abc import Callable

from torch import nn

from gleam_mm.layouts.timm_backbone import layers_of
from gleam_mm.petl import PETLMethod


class Layers:
    """What ``model.group_matcher()`` of timm is while a method is attached.

    timm's ``layer_decay`` asks it for the layer of each parameter by its name, and gives those that
    it does not know the rate of the classifier. A parameter of the method at a site is of the layer
    of that site; what many sites share stays with the classifier.

    ``copy.deepcopy`` and ``pickle`` of the model take it along.

    Args:
        model: A model with a ``group_matcher()``.
        petl: The method that is attached to it.
    """

    def __init__(self, model: nn.Module, petl: PETLMethod) -> None:
        self._model = model
        self._petl = petl
        vars(model)['group_matcher'] = self

    def __call__(self, coarse: bool = False) -> Callable[[str], float]:
        """What tells the layer of a parameter, or of a module, by its name."""
        layers, modules = layers_of(self._model, coarse)
        at: dict[int, float] = {}
        for member in self._petl.members():
            for key, site in member.sites.items():
                if key in member.local and (layer := _layer_at(site.path, layers)) is not None:
                    at |= {id(parameter): layer for parameter in member.local[key].parameters()}
        layers |= {name: at[id(p)] for name, p in self._model.named_parameters() if id(p) in at}
        known = {**modules, **layers}
        return lambda name: known.get(name, float('inf'))

    def remove(self) -> None:
        """Gives the model its own ``group_matcher()`` back."""
        del vars(self._model)['group_matcher']


def _layer_at(path: str, layers: dict[str, float]) -> float | None:
    """The layer of the parameters in a module, or else in the nearest around it that has some."""
    while path:
        for name, layer in layers.items():
            if name.startswith(f'{path}.'):
                return layer
        path = path.rpartition('.')[0]
    return None
