"""BitFit: the biases learn."""

from collections.abc import Iterator, Sequence

from torch import nn

from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS

# How layers, fused projections of BEiT and EVA, and Swin's attention name what they add.
BIASES = ('bias', 'q_bias', 'v_bias', 'in_proj_bias', 'relative_position_bias_table')


@MODELS.register_module()
class BitFit(PETLMethod):
    """Trains every bias of the backbone, and adds nothing (Ben Zaken et al., ACL 2022).

    That is the biases of the Linears, of the norms and of the patch embedding, and Swin's relative
    position biases, without which Swin-B has not the 0.20 M parameters that papers print.

    Args:
        blocks: Transformer blocks whose biases are trained; by default all of the backbone's.
        norms: Whether the weights of the norms are trained as well.
    """

    def __init__(self, blocks: Sequence[int] | None = None, norms: bool = False) -> None:
        super().__init__((), blocks)
        self.norms = norms

    def adopted_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The backbone's biases, by the names that their modules give them."""
        norms = {
            f'{name}.weight'
            for name, module in self.layout.backbone.named_modules()
            if self.norms and isinstance(module, nn.LayerNorm)
        }
        for name, parameter in self.layout.parameters(self.blocks):
            if name.rpartition('.')[2] in BIASES or name in norms:
                yield name, parameter
