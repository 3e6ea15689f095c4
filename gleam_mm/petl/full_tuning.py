"""Full tuning: the whole backbone learns."""

from collections.abc import Iterator, Sequence

from torch import nn

from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


@MODELS.register_module()
class FullTuning(PETLMethod):
    """Trains every parameter of the backbone, and adds none.

    Args:
        blocks: Transformer blocks to train; by default the whole backbone.
    """

    def __init__(self, blocks: Sequence[int] | None = None) -> None:
        super().__init__((), blocks)

    def adopted_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters of the backbone, or of the given blocks."""
        return self.layout.parameters(self.blocks)
