"""MMEngine hooks and optimizer parts."""

from gleam_mm.engine.classes import CheckClassesHook, fill_num_classes
from gleam_mm.engine.optim import TrainableOptimWrapperConstructor

__all__ = ['CheckClassesHook', 'TrainableOptimWrapperConstructor', 'fill_num_classes']
