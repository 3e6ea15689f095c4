"""MMEngine hooks and optimizer parts."""

from gleam_mm.engine.classes import CheckClassesHook, fill_num_classes
from gleam_mm.engine.console_hook import ConsoleHook, headline
from gleam_mm.engine.optim import TrainableOptimWrapperConstructor
from gleam_mm.engine.runner import PETLRunner

__all__ = [
    'CheckClassesHook',
    'ConsoleHook',
    'PETLRunner',
    'TrainableOptimWrapperConstructor',
    'fill_num_classes',
    'headline',
]
