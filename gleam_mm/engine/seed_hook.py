"""What is random in an epoch depends on the epoch, not on what came before it."""

import random

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from gleam_mm.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every epoch from the run's seed and the number of the epoch.

    A resumed run then draws the same noise as one that was never interrupted, whatever was drawn in
    between, such as by validation. Random transforms in persistent worker processes of a data
    loader keep their own state and are not covered.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds Python, numpy and torch on all devices."""
        seed = int(np.random.SeedSequence([runner.seed, runner.epoch]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
