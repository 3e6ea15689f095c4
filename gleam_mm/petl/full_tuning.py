"""Full tuning: the whole backbone learns."""

from collections.abc import Iterator

from torch import nn

from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


@MODELS.register_module()
class FullTuning(PETLMethod):
    """Trains every parameter of the backbone, and adds none."""

    def __init__(self) -> None:
        super().__init__(sites=())

    def adopted_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters of the backbone."""
        return self.layout.backbone.named_parameters()
