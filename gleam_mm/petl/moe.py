"""The shared multi-scale mixture of convolutions (GLEAM, equations 8 to 12), in folded form."""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Checked, NonNegative, Positive
from gleam_mm.layouts import Grid, PassState
from gleam_mm.petl.constants import constant
from gleam_mm.petl.exporting import exporting
from gleam_mm.petl.fused_moe import Choice, fusible, mix_fused
from gleam_mm.petl.sharing import for_each, lowered


class _Imbalances(PassState):
    """How uneven the decisions of each call since the last loss was taken."""

    def __init__(self) -> None:
        self.of_calls: list[Tensor] = []


class Mixture(NamedTuple):
    """What a mixture computes with that depends on its parameters alone.

    Attributes:
        kernels: The experts' kernels at the original resolution, of shape (n, r, r, 3, 3).
        router: The gate's matrix of shape (r, n), in training with that of its noise, (r, 2 n).
    """

    kernels: Tensor
    router: Tensor


class ConvMoE(Checked, nn.Module):
    r"""Multi-scale sparse mixture of 3x3 convolutions over the token grid.

    Expert i upsamples its input :math:`s_i` times (nearest neighbour), applies a 3x3 convolution
    with zero padding and average-pools :math:`s_i` times (equation 8). A noisy top-k gate chooses k
    of the n experts for each image, or for each window where attention is windowed:

    .. math::
        H(h) = h W_g + \mathcal N(0, 1) \cdot \mathrm{softplus}(h W_n), \qquad
        G(h) = \mathrm{softmax}(\mathrm{TopK}(H(h), k)), \qquad
        z_{out} = \sum_i G_i E_i(z_{in})

    (equations 9 to 12), where h is the mean of the grid's tokens; the noise acts in training only.
    Prefix tokens have no neighbours: each passes through the same experts as an image of 1x1. The
    paper does not say what h is; ``gate='token'`` is the other reading, in which every token, each
    prefix token as well, chooses its own k experts by its own features and its own noise.

    An expert is computed without upsampling. Averaged over the s x s copies of a pixel, the outer
    taps of a kernel reach the neighbouring pixel from one copy in s and stay inside otherwise, so
    along each axis the expert is exactly the 3-tap kernel

    .. math::
        K'_{\pm 1} = K_{\pm 1} / s, \qquad
        K'_0 = K_0 + \tfrac{s-1}{s} (K_{-1} + K_{+1})

    at the original resolution. Experts are linear in their kernels, so their gated sum is one
    convolution with the gated sum of the folded kernels: the cost depends neither on n nor on k nor
    on the scales. Where each token has a gate of its own, one convolution evaluates all n experts,
    and the sum comes after it.

    With ``top_k=1`` the softmax is over a single expert and constant, so that the gate gets no
    gradient from the task: it then routes by its initial weights and its noise. This is what
    equations 10 to 12 say, not an addition of ours.

    Conv-LoRA (Zhong et al., ICLR 2024), whose gate is that of equations 10 to 12, has more around
    it, of which the paper says nothing and none of which a count of parameters tells: ``residual=1,
    gate_init='zero', noise_floor=0.01, balance=0.01, expert_bias=True``. Its experts also have a
    GELU, and interpolate bicubically; neither folds, so neither is here.

    Args:
        channels: Width r of the tokens.
        num_experts: Number n of experts.
        top_k: How many experts k serve an image or a token, from 1 to n; the paper chooses it
            from 1, 2, 3.
        scales: The experts' scales, one each, "different ratios" in the paper. Defaults to 1, 2,
            ..., n.
        gate: What the gate decides for. The paper says that experts are selected "for each input",
            which may be an ``'image'`` (where attention is windowed, a window), by the mean of its
            tokens, or a ``'token'``, by its own features.
        expert_init: How experts start, which the paper does not say: ``'kaiming'`` as PyTorch's
            convolutions do, or ``'identity'``. As a kernel without outer taps folds to itself, the
            latter mixture starts as the identity, whatever its gate decides.
        expert_bias: Whether an expert's convolution has a bias, which starts at zero.
        residual: Weight c of the tokens themselves beside the mixture, :math:`c z + z_{out}`.
        normalize: Whether each token is divided by the root mean square of its channels first, so
            that what the mixture gives no longer grows with what it gets.
        gate_init: How the gate's two matrices start: ``'uniform'`` as PyTorch's Linears do, or at
            ``'zero'``, where noise alone decides at first.
        noise_floor: What is added to the softplus of equation 11.
        renormalize: Whether the softmax is over the k chosen experts (equation 10). If not, it is
            over all n before the choice; the weights then sum to less than one, and the gate gets a
            gradient at k = 1 too.
        balance: Weight of the loss that keeps experts in use, see :meth:`imbalance`.

    Raises:
        ValueError: ``num_experts``, ``top_k`` and ``scales`` do not fit each other.
    """

    _fold: Tensor
    _areas: Tensor

    def __init__(
        self,
        channels: Positive,
        num_experts: Positive = 4,
        top_k: Positive = 2,
        scales: Sequence[Positive] | None = None,
        gate: Literal['image', 'token'] = 'image',
        expert_init: Literal['kaiming', 'identity'] = 'kaiming',
        expert_bias: bool = False,
        residual: float = 0.0,
        normalize: bool = False,
        gate_init: Literal['uniform', 'zero'] = 'uniform',
        noise_floor: NonNegative = 0.0,
        renormalize: bool = True,
        balance: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        if top_k > num_experts:
            raise ValueError(
                f'top_k={top_k} is out of range: choose 1 to {num_experts} (num_experts)'
            )
        scales = tuple(scales) if scales is not None else tuple(range(1, num_experts + 1))
        if len(scales) != num_experts:
            raise ValueError(f'scales={scales}: give one an expert, num_experts={num_experts}')
        self.channels = channels
        self.num_experts = num_experts
        self.top_k = top_k
        self.scales = scales
        self.gates_tokens = gate == 'token'
        self.expert_init = expert_init
        self.residual = residual
        self.normalize = normalize
        self.gate_init = gate_init
        self.noise_floor = noise_floor
        self.renormalize = renormalize
        self.balance = balance
        self.fused = True  # on a GPU, where it can be
        self._pass = _Imbalances()
        self.kernels = nn.Parameter(torch.empty(num_experts, channels, channels, 3, 3))
        self.biases = nn.Parameter(torch.zeros(num_experts, channels)) if expert_bias else None
        self.gate = nn.Parameter(torch.empty(channels, num_experts))
        self.noise = nn.Parameter(torch.empty(channels, num_experts))
        # Whole numbers, which stay exact when the module changes its precision.
        self.register_buffer('_fold', _fold_matrices(scales), persistent=False)
        self.register_buffer('_areas', torch.tensor(scales) ** 2.0, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises experts and gate as told; biases with zero."""
        for kernel in self.kernels:
            if self.expert_init == 'identity':
                nn.init.dirac_(kernel)
            else:
                nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        if self.biases is not None:
            nn.init.zeros_(self.biases)
        bound = 1 / math.sqrt(self.channels) if self.gate_init == 'uniform' else 0.0
        nn.init.uniform_(self.gate, -bound, bound)
        nn.init.uniform_(self.noise, -bound, bound)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and converts; kernels, which have an axis too many for ``channels_last``, as well.

        They stay contiguous: that format is for what is convolved, not for what is summed first.
        """

        def each(tensor: Tensor) -> Tensor:
            if tensor.dim() != 5:
                return fn(tensor)
            return fn(tensor.flatten(0, 1)).contiguous().unflatten(0, tensor.shape[:2])

        return super()._apply(each, recurse)

    def route(self, h: Tensor, router: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Gates the experts (equations 10 to 12).

        Args:
            h: What to decide by: mean features (B, r), or the tokens (B, N, r) themselves.
            router: As in :class:`Mixture`; by default that of the module's parameters.
            noise: Normal numbers for training, shaped like the result; by default drawn here.

        Returns:
            Weights of shape (B, n) or (B, N, n), k of them above zero for each decision, which sum
            to one, or to less without ``renormalize``.
        """
        clean = logits = h @ (self._router() if router is None else router)
        if self.training:
            clean, spread = logits.chunk(2, dim=-1)
            spread = F.softplus(spread)
            if self.noise_floor:
                spread = spread + self.noise_floor
            drawn = torch.randn_like(spread) if noise is None else noise.to(spread)
            logits = torch.addcmul(clean, drawn, spread)
        if self.top_k == self.num_experts:
            weights = logits.softmax(-1)
        else:
            best, chosen = logits.topk(self.top_k, dim=-1)
            shares = best.softmax(-1) if self.renormalize else logits.softmax(-1).gather(-1, chosen)
            weights = torch.zeros_like(logits, dtype=shares.dtype).scatter(-1, chosen, shares)
        if self.training and self.balance:
            self._pass.of_calls.append(self.imbalance(weights, clean, logits, spread))
        return weights

    def imbalance(self, weights: Tensor, clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
        r"""How unevenly the decisions of one call use the experts (Shazeer et al., ICLR 2017).

        The sum of two squared coefficients of variation over the experts: of their importance, the
        sum of their weights, and of their load, the number of decisions that are expected to choose
        them if noise i is drawn again. Load has a gradient where the weights have none, at k = 1;
        it is even where all experts serve every input.

        Args:
            weights: What :meth:`route` gives, of shape (..., n).
            clean: The logits without their noise.
            noisy: The logits with it.
            spread: The noise's standard deviations.
        """
        weights, clean, noisy, spread = (
            tensor.float().flatten(0, -2) for tensor in (weights, clean, noisy, spread)
        )
        imbalance = _squared_variation(weights.sum(0))
        if self.top_k == self.num_experts:
            return imbalance
        # The best of the others that must be beaten: the k-th, but for whom is among the k itself.
        last, next_best = noisy.topk(self.top_k + 1, dim=-1).values[:, -2:].split(1, dim=-1)
        threshold = torch.where(noisy > next_best, next_best, last)
        load = torch.special.ndtr((clean - threshold) / spread).sum(0)
        return imbalance + _squared_variation(load)

    def take_loss(self) -> Tensor:
        """The balance loss of all calls since the last time, a number; then forgets them."""
        taken, self._pass.of_calls = self._pass.of_calls, []
        return self.balance * sum(taken, self.gate.new_zeros(()))

    def folded_kernels(self) -> Tensor:
        """The experts' kernels at the original resolution, of shape (n, r, r, 3, 3)."""
        flat = self.kernels.view(self.num_experts, -1, 9)
        return (flat @ self._fold / self._areas.view(-1, 1, 1)).view_as(self.kernels)

    @constant
    def mixture(self) -> Mixture:
        """What a mixture of any tokens computes with."""
        return Mixture(lowered(self.folded_kernels()), lowered(self._router()))

    def mixtures(self, count: int) -> list[Mixture]:
        """The same for each of so many calls, whose gradients are summed at once."""
        kernels, router = (for_each(tensor, count) for tensor in self.mixture())
        return [Mixture(*pair) for pair in zip(kernels, router, strict=True)]

    def _router(self) -> Tensor:
        return torch.cat((self.gate, self.noise), dim=1) if self.training else self.gate

    def forward(self, z: Tensor, grid: Grid, mixture: Mixture | None = None) -> Tensor:
        """Mixes tokens over their grid.

        Args:
            z: Tokens of shape (B, N, r).
            grid: The layout of the tokens.
            mixture: What to compute with; by default :meth:`mixture`.

        Returns:
            Mixed tokens of shape (B, N, r).

        Raises:
            ValueError: The number of tokens does not fit the grid.
        """
        if z.shape[1] != grid.tokens:
            raise ValueError(
                f'got {z.shape[1]} tokens where the grid has {grid.height} x {grid.width} and '
                f'{grid.prefix + grid.suffix} others; the layout tells a wrong grid'
            )
        if self.normalize:
            z = z * (z.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        mix = self._gate_tokens if self.gates_tokens else self._gate_images
        mixed = mix(z, grid, mixture or self.mixture())
        return torch.add(mixed, z, alpha=self.residual) if self.residual else mixed

    def _gate_images(
        self, z: Tensor, grid: Grid, mixture: Mixture, noise: Tensor | None = None
    ) -> Tensor:
        """Equation 9 with one decision an image: sums the experts' kernels, then convolves."""
        batch, _, channels = z.shape
        if self._fuses(z, grid, mixture):
            if self.training and noise is None:
                noise = torch.randn(batch, self.num_experts, device=z.device)
            return mix_fused(z, *mixture, noise, grid, Choice(self.top_k, self.noise_floor))
        outside, mixed = grid.split(z)
        # Tokens that are no part of an image, such as prompts on their own, decide by themselves.
        weights = self.route((mixed if mixed.shape[1] else z).mean(1), mixture.router, noise)
        kernels = weights @ mixture.kernels.flatten(1)  # (B, 9 r^2)
        kernels = kernels.view(batch * channels, channels, 3, 3)
        if mixed.shape[1] and (exporting() or not batch):  # no groups are no convolution
            mixed = self._sum_experts(mixed, weights, grid, mixture.kernels)
        elif mixed.shape[1]:
            # One group an image, so that each image meets its own kernel.
            image = mixed.transpose(1, 2).reshape(1, batch * channels, grid.height, grid.width)
            mixed = F.conv2d(image, kernels, padding=1, groups=batch)
            mixed = mixed.view(batch, channels, grid.height * grid.width).transpose(1, 2)
        if outside.shape[1]:
            centre = kernels.flatten(2)[..., 4].view(batch, channels, channels)
            mixed = grid.join(outside @ centre.transpose(1, 2), mixed)
        return mixed if self.biases is None else mixed + (weights @ self.biases).unsqueeze(1)

    def _fuses(self, z: Tensor, grid: Grid, mixture: Mixture) -> bool:
        """Whether one kernel of a GPU computes all of this mixture."""
        plain = self.renormalize and self.biases is None and not (self.training and self.balance)
        on_grid = grid.height * grid.width > 0
        able = self.fused and plain and on_grid and fusible(z, mixture.kernels) and len(z) > 0
        return able and _kernel_holds(z.device, z.dtype, self.channels)

    def _sum_experts(self, inside: Tensor, weights: Tensor, grid: Grid, kernels: Tensor) -> Tensor:
        """The same with the sum after the convolution: the batch is then no number of groups."""
        experts = _convolve(inside, kernels.flatten(0, 1), grid)
        experts = experts.unflatten(2, (self.num_experts, self.channels))
        return (weights[:, None, :, None] * experts).sum(2)

    def _gate_tokens(self, z: Tensor, grid: Grid, mixture: Mixture) -> Tensor:
        """Equation 9 with one decision a token: convolves with all experts, then sums over them."""
        kernels = mixture.kernels.flatten(0, 1)  # (n r, r, 3, 3)
        outside, inside = grid.split(z)
        experts = inside.new_empty(z.shape[0], 0, len(kernels))
        if inside.shape[1]:
            experts = _convolve(inside, kernels, grid)
        if outside.shape[1]:
            experts = grid.join(F.linear(outside, kernels[:, :, 1, 1]), experts)
        experts = experts.unflatten(2, (self.num_experts, self.channels))
        if self.biases is not None:
            experts = experts + self.biases
        return (self.route(z, mixture.router).unsqueeze(2) @ experts).squeeze(2)


@functools.cache
def _kernel_holds(device: torch.device, dtype: torch.dtype, channels: int) -> bool:
    """Whether one kernel gives on a device what PyTorch's operations give there: tried once."""
    with (
        torch.random.fork_rng([device] if device.type == 'cuda' else []),
        torch.autocast(device.type, enabled=False),
        torch.enable_grad(),
    ):
        torch.manual_seed(0)
        grid = Grid(1, 5, 6)
        single = dtype is torch.float32
        # Rounded otherwise, two experts may change places: less precise, all serve.
        moe = ConvMoE(channels, num_experts=4, top_k=2 if single else 4).to(device, dtype)
        z = torch.randn(3, grid.tokens, channels, device=device, dtype=dtype, requires_grad=True)
        noise = torch.randn(3, moe.num_experts, device=device)
        mixture, choice = moe.mixture(), Choice(moe.top_k, moe.noise_floor)
        moe.fused = False
        plain = moe._gate_images(z, grid, mixture, noise)
        try:
            fused = mix_fused(z, *mixture, noise, grid, choice)
            wanted = z, moe.kernels, moe.gate, moe.noise
            results = [
                (mixed, *torch.autograd.grad(mixed.square().sum(), wanted, retain_graph=True))
                for mixed in (fused, plain)
            ]
            wrong = max(float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True))
            holds = wrong < (0.01 if single else 0.05)  # PyTorch's convolutions may be in TF32
            why = f'it differs from PyTorch by {wrong:.1%}'
        except Exception as error:  # whatever a compiler or a driver raises
            holds, why = False, f'{type(error).__name__}: {error}'
    if not holds:
        warnings.warn(
            f"GLEAM's kernel is not used on {device} with {str(dtype).removeprefix('torch.')}, and "
            f'PyTorch computes its mixture, which is slower: {why}',
            stacklevel=2,
        )
    return holds


def _convolve(inside: Tensor, kernels: Tensor, grid: Grid) -> Tensor:
    """The tokens (B, N, r) of a grid under kernels (c, r, 3, 3), of shape (B, N, c)."""
    image = inside.transpose(1, 2).unflatten(2, (grid.height, grid.width))
    return F.conv2d(image, kernels, padding=1).flatten(2).transpose(1, 2)


def _fold_matrices(scales: tuple[int, ...]) -> Tensor:
    """Matrices (n, 9, 9) that fold flattened 3x3 kernels from the right, times the areas s^2."""
    axes = [torch.tensor([[1.0, 0, 0], [s - 1, s, s - 1], [0, 0, 1]]) for s in scales]
    return torch.stack([torch.kron(axis, axis).T for axis in axes])


def _squared_variation(usage: Tensor) -> Tensor:
    """The squared coefficient of variation over experts, zero where there is only one."""
    if len(usage) == 1:
        return usage.new_zeros(())
    return usage.var() / (usage.mean().square() + 1e-10)
