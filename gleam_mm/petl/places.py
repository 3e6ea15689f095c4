"""Whether modules that a method acts at are still in the backbone."""

from collections.abc import Iterable

from torch import nn


class Places:
    """Where modules stand in a backbone.

    Asked at every pass: a look at each parent costs little, a walk through all modules does not.

    Args:
        backbone: The backbone.
        paths: Those of the modules. What is no child of its parent goes with the parent.
    """

    def __init__(self, backbone: nn.Module, paths: Iterable[str]) -> None:
        self._backbone = backbone
        self._modules: dict[str, nn.Module] = {}
        steps: dict[tuple[nn.Module, str], nn.Module] = {}
        for path in paths:
            module = backbone
            for name in path.split('.'):
                if (child := module._modules.get(name)) is None:
                    break
                steps[module, name] = module = child
            self._modules[path] = module
        self._steps = [(parent, name, child) for (parent, name), child in steps.items()]

    def lost(self) -> list[str]:
        """The paths of those that are not in the backbone any more; one may be wrapped in place."""
        for parent, name, child in self._steps:
            if parent._modules.get(name) is not child:
                there = set(self._backbone.modules())
                return [path for path, module in self._modules.items() if module not in there]
        return []
