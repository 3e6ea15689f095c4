"""Adapter: bottlenecks behind the sublayers of a transformer."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bits import Bits
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.registry import MODELS


@MODELS.register_module()
class Adapter(PETLMethod):
    r"""Adapters in series with the sublayers (Houlsby et al., ICML 2019, section 2.1).

    .. math::
        h = y + U \, \mathrm{GELU}(D y + b_D) + b_U

    where y is what a sublayer adds to the residual stream: the output of fc2, and with
    ``sites=('proj', 'fc2')``, as in the paper, that of the attention's projection as well. U starts
    at zero. An adapter has :math:`2 d r + r + d` parameters, without biases :math:`2 d r`.

    Args:
        bottleneck: Inner width r.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
        bias: Whether the bottleneck has biases.
        drop_rate: Dropout in front of U. The codes of V-PETL Bench and NOAH, whose accuracies
            others print for this method, have 0.1.

    Raises:
        ValueError: ``bits`` is out of range.
    """

    obstacle = 'its two Linears have a GELU between them, which no weight of a Linear can hold'

    def __init__(
        self,
        bottleneck: Positive = 8,
        sites: Sequence[str] = ('fc2',),
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
        bias: bool = True,
        drop_rate: Probability = 0.0,
    ) -> None:
        super().__init__(sites, blocks)
        self.bits = bits
        self.bias = bias
        self.bottleneck = bottleneck
        self.drop_rate = drop_rate

    def build(self, sites: list[Site]) -> None:
        """Creates one bottleneck a site."""
        for site in sites:
            self.local[site.key] = Bottleneck(
                site.out_features, self.bottleneck, bits=self.bits, bias=self.bias
            )

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the bottleneck makes of the sublayer's output."""
        bottleneck = self.local[site.key]
        hidden = F.gelu(bottleneck.down(y))
        return y + bottleneck.up(F.dropout(hidden, self.drop_rate, self.training))
