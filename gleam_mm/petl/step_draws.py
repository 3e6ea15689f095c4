"""What a method draws of each training step."""

import random

from torch import Tensor


def next_step(seed: int, step: Tensor) -> random.Random:
    """The generator of a training step, by its number alone: the same in every process.

    Args:
        seed: The method's seed.
        step: The buffer that counts its steps, which goes on.
    """
    # Text, for Python hashes what it seeds with alike everywhere only if it is that.
    generator = random.Random(f'{seed} {step.item()}')
    step += 1
    return generator
