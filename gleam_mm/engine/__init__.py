"""Trainings: what MMEngine runs them by, from loops, hooks and optimizers to trackers."""

from gleam_mm.engine.amp import CPUAmpOptimWrapper
from gleam_mm.engine.cache_hook import DeviceCacheHook
from gleam_mm.engine.calibrate_hook import CalibrateHook
from gleam_mm.engine.checkpoint_hook import AdapterCheckpointHook
from gleam_mm.engine.classes import CheckClassesHook, fill_num_classes
from gleam_mm.engine.console_hook import ConsoleHook, headline
from gleam_mm.engine.dist import init_dist
from gleam_mm.engine.early_stopping_hook import ResumedEarlyStoppingHook
from gleam_mm.engine.loops import EpochTrainLoop, FoldingTestLoop, FoldingValLoop, IterTrainLoop
from gleam_mm.engine.metrics import RegressionMetric
from gleam_mm.engine.optim import TrainableOptimWrapperConstructor
from gleam_mm.engine.order import EpochSeedHook
from gleam_mm.engine.pictures_hook import PicturesHook
from gleam_mm.engine.resume import find_resumable
from gleam_mm.engine.runner import PETLRunner
from gleam_mm.engine.schedule import WarmupLR
from gleam_mm.engine.sparse_hook import SparseAdapterHook
from gleam_mm.engine.trackers import MLflowTracker, TensorboardTracker, WandbTracker

__all__ = [
    'AdapterCheckpointHook',
    'CPUAmpOptimWrapper',
    'CalibrateHook',
    'CheckClassesHook',
    'ConsoleHook',
    'DeviceCacheHook',
    'EpochSeedHook',
    'EpochTrainLoop',
    'FoldingTestLoop',
    'FoldingValLoop',
    'IterTrainLoop',
    'MLflowTracker',
    'PETLRunner',
    'PicturesHook',
    'RegressionMetric',
    'ResumedEarlyStoppingHook',
    'SparseAdapterHook',
    'TensorboardTracker',
    'TrainableOptimWrapperConstructor',
    'WandbTracker',
    'WarmupLR',
    'fill_num_classes',
    'find_resumable',
    'headline',
    'init_dist',
]
