"""The optimizer sees what is trained, and nothing else."""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from mmengine.optim import DefaultOptimWrapperConstructor as _MMEngineConstructor
from mmengine.optim import OptimWrapper
from torch import nn

from gleam_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


# Under MMEngine's own name, so that it serves every config that names no constructor.
@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name='DefaultOptimWrapperConstructor')
class TrainableOptimWrapperConstructor(_MMEngineConstructor):
    """MMEngine's default constructor, given the trainable parameters only.

    MMEngine hands frozen parameters to the optimizer as well, and warns of each of them where
    there is a ``paramwise_cfg``.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Builds the optimizer wrapper.

        Raises:
            ValueError: The model has no trainable parameter.
        """
        if next(_trainable(model), None) is None:
            raise ValueError(f'{type(model).__name__} has no trainable parameter to optimize')
        if not self.paramwise_cfg:
            return super().__call__(SimpleNamespace(parameters=partial(_trainable, model)))
        return super().__call__(model)

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        """Adds the parameters of a module, passing over modules that are frozen altogether."""
        if next(_trainable(module), None) is not None:
            super().add_params(params, module, **kwargs)


def _trainable(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module.parameters() if parameter.requires_grad)
