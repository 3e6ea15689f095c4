"""Linear probing: only the head learns."""

from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


@MODELS.register_module()
class LinearProbe(PETLMethod):
    """Trains the head on the frozen backbone's features. It has no sites and no parameters."""

    def __init__(self) -> None:
        super().__init__(sites=())
