"""R-Adapter: linear adapters for robustness, of which inference takes half."""

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks.drop import drop_path
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.lora import LowRankPair
from gleam_mm.registry import MODELS


@MODELS.register_module()
class RAdapter(PETLMethod):
    r"""R-Adapter (Kim et al., ECCV 2024).

    .. math::
        h = y + s \, U D y

    behind attention and FFN, with a learned s. Its robustness comes from three ensembles: in
    training a drop path leaves adapters out; evaluation and merging take ``rescale`` times s,
    between the pretrained model and the tuned one; and weights are averaged over the training (by
    MMEngine's ``EMAHook``). The paper's loss, of images and texts, is not part of it. U starts at
    zero. It folds: :math:`W' = (I + s U D) W`. A site has :math:`2 d r + 1` parameters.

    Args:
        rank: Inner width r.
        scale: Where s starts.
        rescale: What s is multiplied by in evaluation.
        drop_path_rate: Probability that an image passes by an adapter, in training.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    def __init__(
        self,
        rank: Positive = 64,
        scale: float = 0.1,
        rescale: float = 0.5,
        drop_path_rate: Probability = 0.2,
        sites: Sequence[str] = ('proj', 'fc2'),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.rank = rank
        self.scale = scale
        self.rescale = rescale
        self.drop_path_rate = drop_path_rate

    def build(self, sites: list[Site]) -> None:
        """Creates one pair of matrices and one scale a site."""
        for site in sites:
            width = site.out_features
            self.local[site.key] = pair = LowRankPair(width, width, self.rank)
            pair.scale = nn.Parameter(torch.tensor(self.scale))

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the adapter's update to the frozen Linear's output."""
        pair = self.local[site.key]
        scale = pair.scale if self.training else self.rescale * pair.scale
        update = F.linear(F.linear(y, pair.down), pair.up * scale)
        return y + drop_path(update, self.drop_path_rate, self.training)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Multiplies the adapter of evaluation into the weight and the bias."""
        pair = self.local[site.key]
        up = self.rescale * pair.scale * pair.up
        if bias is not None:
            bias = bias + up @ (pair.down @ bias)
        return weight + up @ (pair.down @ weight), bias
