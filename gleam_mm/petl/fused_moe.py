"""The mixture of convolutions on a GPU: one kernel forward and one backward, written in Triton.

What PyTorch does in some forty small operations, of both passes, at each of a network's 48 sites
costs a GPU little arithmetic and its host much time: launching them takes several times as long as
the whole backbone. Here one program computes all of an image: the mean of its tokens, its gates,
the gated sum of the experts' kernels, and the convolution.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.function import once_differentiable

from gleam_mm.layouts import Grid
from gleam_mm.petl.exporting import exporting

try:
    import triton
except ImportError:  # there are builds of PyTorch without it
    triton = None
else:
    from gleam_mm.petl import fused_moe_kernels

# More would not fit into the memory that a GPU shares in a program.
_MOST_BYTES = 512  # of one channel of the tokens that are held at once
_MOST_CHANNELS = 32
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Choice(NamedTuple):
    """How experts are chosen, see :class:`~gleam_mm.petl.moe.ConvMoE`."""

    top_k: int
    noise_floor: float


def fusible(z: Tensor, kernels: Tensor) -> bool:
    """Whether :func:`mix_fused` takes such tokens and kernels."""
    return (
        triton is not None
        and z.is_cuda
        and z.dtype in _DTYPES
        and kernels.shape[1] <= _MOST_CHANNELS
        and not torch.compiler.is_compiling()
        and not exporting()
        and not is_functorch_wrapped_tensor(z)
    )


def mix_fused(
    z: Tensor, kernels: Tensor, router: Tensor, noise: Tensor | None, grid: Grid, choice: Choice
) -> Tensor:
    """Equations 8 to 12 of GLEAM with one decision an image.

    Args:
        z: Tokens (B, N, r).
        kernels: The experts' kernels at the original resolution, (n, r, r, 3, 3).
        router: The gate's matrix (r, n), with noise that of the noise beside it, (r, 2 n).
        noise: Normal numbers (B, n), or None in evaluation.
        grid: The layout of the tokens.
        choice: How experts are chosen.

    Returns:
        Mixed tokens (B, N, r).
    """
    mixed: Tensor = _Mix.apply(z, kernels, router, noise, grid, choice)
    return mixed


class _Mix(torch.autograd.Function):
    """Keeps the tokens, and of each image its gates, their slopes and its mean."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        kernels: Tensor,
        router: Tensor,
        noise: Tensor | None,
        grid: Grid,
        choice: Choice,
    ) -> Tensor:
        z, kernels, router = z.contiguous(), kernels.contiguous(), router.contiguous()
        batch, experts = z.shape[0], kernels.shape[0]
        mixed = torch.empty_like(z)
        gates = kernels.new_empty(batch, experts)
        slopes = z.new_empty(batch, experts, dtype=torch.float32)
        means = router.new_empty(batch, z.shape[2])
        with torch.cuda.device_of(z):  # where Triton starts it
            fused_moe_kernels.forward[(batch,)](
                z, kernels, router, z if noise is None else noise.float(),
                mixed, gates, slopes, means,
                *_sizes(z, grid, experts), choice.top_k, choice.noise_floor,
                noisy=noise is not None, **_blocks(z, experts),
            )  # fmt: skip
        ctx.save_for_backward(z, kernels, router, gates, slopes, means)
        ctx.grid = grid
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, kernels, router, gates, slopes, means = ctx.saved_tensors
        experts = kernels.shape[0]
        grad_z = torch.empty_like(z)
        grad_kernel = kernels.new_empty(len(z), kernels[0].numel())  # of each image
        grad_logits = router.new_empty(len(z), router.shape[1])
        with torch.cuda.device_of(z):
            fused_moe_kernels.backward[(len(z),)](
                z, grad.contiguous(), kernels, router, gates, slopes,
                grad_z, grad_kernel, grad_logits,
                *_sizes(z, ctx.grid, experts),
                noisy=router.shape[1] > experts, **_blocks(z, experts),
            )  # fmt: skip
        grad_kernels = (gates.T @ grad_kernel).view_as(kernels)
        return grad_z, grad_kernels, means.T @ grad_logits, None, None, None


def _sizes(z: Tensor, grid: Grid, experts: int) -> tuple[int, ...]:
    return z.shape[1], grid.prefix, grid.height, grid.width, z.shape[2], experts


def _blocks(z: Tensor, experts: int) -> dict[str, Any]:
    """The shapes that a program computes in: powers of two, and 16 or more in products."""
    tokens = min(_MOST_BYTES // z.element_size(), max(16, triton.next_power_of_2(z.shape[1])))
    return {
        'block_tokens': tokens,
        'block_channels': max(16, triton.next_power_of_2(z.shape[2])),
        'block_experts': triton.next_power_of_2(experts),
        'num_warps': 8 if tokens > 128 else 4,
    }
