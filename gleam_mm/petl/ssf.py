"""SSF: scaling and shifting the features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gleam_mm.arguments import NonNegative
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class ScaleShift(nn.Module):
    """Scale and shift of one site's channels.

    Args:
        shape: (C,) for channels in the last dimension, (C, 1, 1) for a convolution's.
        std: Standard deviation of the initial values around 1 and 0.
    """

    def __init__(self, shape: Sequence[int], std: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(shape))
        self.shift = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.scale, 1, std)
        nn.init.normal_(self.shift, 0, std)


@MODELS.register_module()
class SSF(PETLMethod):
    r"""Scaling and shifting the features (Lian et al., NeurIPS 2022).

    .. math::
        h = \gamma \odot y + \beta

    behind every operation: the patch embedding, all norms, qkv, proj, fc1 and fc2. A ViT of width d
    gets 22 d parameters a block and 4 d outside of the blocks. All of it folds into the weights.

    As in the official code :math:`\gamma \sim N(1, 0.02^2)` and :math:`\beta \sim N(0, 0.02^2)` at
    first, so that the model does *not* start as the pretrained one; with ``std=0`` it does.

    In Swin the official model scales and shifts in front of the patch embedding's norm too, which
    is no role here. What its code has for the norms of patch merging is never switched on there: a
    stage hands on a list where the merging asks for a name.

    Args:
        std: Standard deviation of the initial scales and shifts.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    at_affine = True  # a patch embedding would return its output reshaped

    def __init__(
        self,
        std: NonNegative = 0.02,
        sites: Sequence[str] = ('patch_embed', 'norm', 'qkv', 'proj', 'fc1', 'fc2'),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.std = std

    def build(self, sites: list[Site]) -> None:
        """Creates one scale and one shift a channel of every site."""
        for site in sites:
            channels = len(site.weight)
            convolution = isinstance(site.affine, nn.Conv2d)
            shape = (channels, 1, 1) if convolution else (channels,)
            self.local[site.key] = ScaleShift(shape, self.std)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Scales and shifts the output's channels."""
        own = self.local[site.key]
        if y.dtype == own.scale.dtype:
            return torch.addcmul(own.shift, y, own.scale)
        # Rounded to bfloat16 itself, a scale near 1 would learn in steps of 0.4 %.
        return (y * own.scale).add_(own.shift).to(y.dtype)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scales the rows of the weight, and scales and shifts the bias."""
        own = self.local[site.key]
        scale, shift = own.scale.flatten(), own.shift.flatten()
        rows = scale.view(-1, *[1] * (weight.dim() - 1))
        return weight * rows, shift if bias is None else bias * scale + shift
