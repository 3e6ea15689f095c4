"""GLEAM with what Conv-LoRA's experts have and equation 8 has not: a GELU, bicubic interpolation.

Neither folds into one convolution, so neither is an option of GLEAM. Here each expert is computed
as it is written, at its own resolution, for the record in docs/gleam.md.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gleam_mm.layouts import Grid
from gleam_mm.petl.gleam import GLEAM
from gleam_mm.petl.moe import ConvMoE, Mixture
from gleam_mm.registry import MODELS


class UnfoldedMoE(ConvMoE):
    """Equation 9 with one decision an image, expert by expert.

    Args:
        *args: As for :class:`~gleam_mm.petl.moe.ConvMoE`.
        gelu: Whether a GELU follows each expert's convolution.
        bicubic: Whether an expert's input and output are interpolated bicubically, instead of
            copied and averaged.
        **kwargs: As for :class:`~gleam_mm.petl.moe.ConvMoE`.
    """

    def __init__(
        self, *args: object, gelu: bool = False, bicubic: bool = False, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)
        self.gelu = gelu
        self.bicubic = bicubic
        self.fused = False

    def _gate_images(
        self, z: Tensor, grid: Grid, mixture: Mixture, noise: Tensor | None = None
    ) -> Tensor:
        outside, inside = grid.split(z)
        weights = self.route(inside.mean(1), mixture.router, noise)
        image = inside.transpose(1, 2).unflatten(2, (grid.height, grid.width))
        mixed = self._sum(image, weights).flatten(2).transpose(1, 2)
        if not outside.shape[1]:
            return mixed
        # A prefix token is an image of one pixel, under its own image's gate.
        pixels = outside.flatten(0, 1)[..., None, None]
        outside_weights = weights.repeat_interleave(outside.shape[1], 0)
        return grid.join(self._sum(pixels, outside_weights).view_as(outside), mixed)

    def _sum(self, image: Tensor, weights: Tensor) -> Tensor:
        """The experts' gated sum of images (B, r, H, W), under weights (B, n)."""
        outputs = [
            self._expert(image, kernel, scale)
            for kernel, scale in zip(self.kernels, self.scales, strict=True)
        ]
        return torch.einsum('bn,nbchw->bchw', weights, torch.stack(outputs))

    def _expert(self, image: Tensor, kernel: Tensor, scale: int) -> Tensor:
        """Equation 8, or Conv-LoRA's expert."""
        mode = 'bicubic' if self.bicubic else 'nearest'
        out = F.conv2d(F.interpolate(image, scale_factor=scale, mode=mode), kernel, padding=1)
        if self.gelu:
            out = F.gelu(out)
        if self.bicubic:
            return F.interpolate(out, size=image.shape[-2:], mode=mode)
        return F.avg_pool2d(out, scale)


@MODELS.register_module()
class UnfoldedGLEAM(GLEAM):
    """GLEAM with :class:`UnfoldedMoE`.

    Args:
        rank: Inner width r.
        num_experts: Number n of experts.
        top_k: How many serve an image.
        gelu: See :class:`UnfoldedMoE`.
        bicubic: See :class:`UnfoldedMoE`.
    """

    def __init__(
        self,
        rank: int = 16,
        num_experts: int = 4,
        top_k: int = 4,
        gelu: bool = False,
        bicubic: bool = False,
    ) -> None:
        super().__init__(rank, num_experts=num_experts, top_k=top_k)
        self.shared['mixer'] = UnfoldedMoE(rank, num_experts, top_k, gelu=gelu, bicubic=bicubic)
