"""A limit on what a model may take that a file describes, before it takes it."""

import math
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from gleam_mm.checkpoint import CheckpointError

_FACTORIES = {'empty', 'full', 'ones', 'rand', 'randn', 'zeros', 'arange', 'linspace'}
"""The operators that make tensors of a size that they are given."""

_FREE = 100_000_000
_TIMES = 8  # of the numbers and bytes in files: some are drawn first, copied or interpolated
_SMALLEST = 20_000  # what any tensor counts, for there must not be a billion small ones either


class Budget(TorchDispatchMode):
    """Within it, tensors of so many numbers can be made and no more.

    An operator that makes a tensor of a size that it is given is refused before it takes memory.

    Args:
        numbers: How many, in all.

    Raises:
        CheckpointError: From within, where it is spent.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    @classmethod
    def for_weights(cls, numbers: int) -> 'Budget':
        """What a model may need for which there are so many numbers, or bytes, in files."""
        return cls(_FREE + _TIMES * numbers)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Counts what an operator makes, and runs it."""
        name = func.overloadpacket._qualified_op_name.partition('::')[2]
        if name in _FACTORIES:
            self.left -= _numbers(name, args) + _SMALLEST
            if self.left < 0:
                raise CheckpointError(
                    'the model that it describes is far larger than the weights that there are; '
                    'the file is damaged or crafted'
                )
        return func(*args, **(kwargs or {}))


def _numbers(name: str, args: tuple) -> int:
    """How many numbers an operator makes."""
    if name == 'linspace':
        return int(args[2])
    if name == 'arange':
        start, end, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
        return max(0, math.ceil((end - start) / step))
    return math.prod(args[0])
