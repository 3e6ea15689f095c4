"""The mixture of convolutions in Triton, for :mod:`gleam_mm.petl.fused_moe`.

One program computes all of an image. Tokens, channels and experts come in blocks, which are powers
of two: what is beyond the last of them is masked.
"""

# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def _places(first, prefix, area, block_tokens: tl.constexpr):
    """Tokens from ``first`` on, and which of them lie on the grid."""
    token = first + tl.arange(0, block_tokens)
    return token, (token >= prefix) & (token < prefix + area)


@triton.jit
def _neighbours(first, tap, tokens, prefix, height, width, block_tokens: tl.constexpr):
    """Where the neighbours of tokens from ``first`` on lie, and whether there are any.

    A token outside of the grid has none but itself.
    """
    token, inside = _places(first, prefix, height * width, block_tokens)
    down, right = tap // 3 - 1, tap % 3 - 1
    row, column = (token - prefix) // width + down, (token - prefix) % width + right
    there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    there = there | ((tap == 4) & (token < tokens))
    return token + down * width + right, there


@triton.jit
def _tokens(z, token, there, channels, block_channels: tl.constexpr):
    """Tokens (block of tokens, channels), zero where there are none."""
    channel = tl.arange(0, block_channels)
    mask = there[:, None] & (channel < channels)[None, :]
    return tl.load(z + token[:, None] * channels + channel[None, :], mask=mask, other=0.0)


@triton.jit
def _at(vector, index, block: tl.constexpr):
    """One number of a vector."""
    return tl.sum(tl.where(tl.arange(0, block) == index, vector, 0.0))


@triton.jit
def _tap_offsets(tap, channels, block_channels: tl.constexpr):
    """Where the weights (in, out) of one tap lie in a kernel (out, in, 3, 3)."""
    channel = tl.arange(0, block_channels)
    offsets = channel[None, :] * channels * 9 + channel[:, None] * 9 + tap
    return offsets, (channel < channels)[:, None] & (channel < channels)[None, :]


@triton.jit
def _mixed_tap(
    kernels, gates, tap, channels, experts: tl.constexpr,
    block_channels: tl.constexpr, block_experts: tl.constexpr,
):  # fmt: skip
    """The gated sum of the experts' weights (in, out) at one tap."""
    offsets, mask = _tap_offsets(tap, channels, block_channels)
    weight = tl.zeros((block_channels, block_channels), tl.float32)
    for expert in range(experts):
        own = tl.load(kernels + expert * 9 * channels * channels + offsets, mask=mask, other=0.0)
        weight += _at(gates, expert, block_experts) * own.to(tl.float32)
    return weight


@triton.jit
def forward(
    z, kernels, router, noise, mixed, gates_out, slopes_out, means_out,
    tokens: tl.constexpr, prefix, height, width, channels, experts: tl.constexpr,
    top_k: tl.constexpr, noise_floor, noisy: tl.constexpr, block_tokens: tl.constexpr,
    block_channels: tl.constexpr, block_experts: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0)
    z += image.to(tl.int64) * tokens * channels
    mixed += image.to(tl.int64) * tokens * channels
    channel = tl.arange(0, block_channels)
    expert = tl.arange(0, block_experts)
    known = expert < experts

    mean = tl.zeros((block_channels,), tl.float32)
    for first in range(0, tokens, block_tokens):
        token, inside = _places(first, prefix, height * width, block_tokens)
        mean += tl.sum(_tokens(z, token, inside, channels, block_channels).to(tl.float32), 0)
    mean = mean / (height * width)
    tl.store(means_out + image * channels + channel, mean, mask=channel < channels)

    columns = experts * (2 if noisy else 1)
    real = (channel < channels)[:, None] & known[None, :]
    matrix = router + channel[:, None] * columns + expert[None, :]
    gate = tl.load(matrix, mask=real, other=0.0).to(tl.float32)
    logits = tl.sum(mean[:, None] * gate, 0)
    slopes = tl.zeros((block_experts,), tl.float32)
    if noisy:
        spread = tl.load(matrix + experts, mask=real, other=0.0).to(tl.float32)
        raw = tl.sum(mean[:, None] * spread, 0)
        drawn = tl.load(noise + image * experts + expert, mask=known, other=0.0)
        grown = tl.exp(-tl.abs(raw))
        softplus = tl.maximum(raw, 0.0) + tl.log(1.0 + grown)
        slopes = drawn * tl.where(raw >= 0, 1.0, grown) / (1.0 + grown)
        logits += drawn * (softplus + noise_floor)
    tl.store(slopes_out + image * experts + expert, slopes, mask=known)

    left = tl.where(known, logits, float('-inf'))
    chosen = expert < 0
    for _ in range(top_k):
        best = expert == tl.argmax(left, 0)
        chosen = chosen | best
        left = tl.where(best, float('-inf'), left)
    logits = tl.where(chosen, logits, float('-inf'))
    shares = tl.exp(logits - tl.max(logits, 0))
    gates = shares / tl.sum(shares, 0)
    tl.store(gates_out + image * experts + expert, gates, mask=known)

    for first in range(0, tokens, block_tokens):
        total = tl.zeros((block_tokens, block_channels), tl.float32)
        for tap in range(9):
            token, there = _neighbours(first, tap, tokens, prefix, height, width, block_tokens)
            weight = _mixed_tap(
                kernels, gates, tap, channels, experts, block_channels, block_experts
            )
            read = _tokens(z, token, there, channels, block_channels)
            total = tl.dot(read, weight.to(read.dtype), total, input_precision='ieee')
        token = first + tl.arange(0, block_tokens)
        target = mixed + token[:, None] * channels + channel[None, :]
        tl.store(target, total, mask=(token < tokens)[:, None] & (channel < channels)[None, :])


@triton.jit
def backward(
    z, grad, kernels, router, gates_in, slopes_in, grad_z, grad_kernel, grad_logits,
    tokens: tl.constexpr, prefix, height, width, channels, experts: tl.constexpr,
    noisy: tl.constexpr, block_tokens: tl.constexpr,
    block_channels: tl.constexpr, block_experts: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0)
    start = image.to(tl.int64) * tokens * channels
    z, grad, grad_z = z + start, grad + start, grad_z + start
    grad_kernel += image.to(tl.int64) * 9 * channels * channels
    channel = tl.arange(0, block_channels)
    expert = tl.arange(0, block_experts)
    known = expert < experts
    gates = tl.load(gates_in + image * experts + expert, mask=known, other=0.0).to(tl.float32)

    grad_gates = tl.zeros((block_experts,), tl.float32)
    for tap in range(9):
        weight = tl.zeros((block_channels, block_channels), tl.float32)
        for first in range(0, tokens, block_tokens):
            neighbour, there = _neighbours(first, tap, tokens, prefix, height, width, block_tokens)
            read = _tokens(z, neighbour, there, channels, block_channels)
            token = first + tl.arange(0, block_tokens)
            given = _tokens(grad, token, there, channels, block_channels)
            weight = tl.dot(tl.trans(read), given, weight, input_precision='ieee')
        offsets, mask = _tap_offsets(tap, channels, block_channels)
        tl.store(grad_kernel + offsets, weight, mask=mask)
        for index in range(experts):
            place = kernels + index * 9 * channels * channels + offsets
            own = tl.load(place, mask=mask, other=0.0).to(tl.float32)
            grad_gates += tl.where(expert == index, tl.sum(weight * own), 0.0)

    grad_clean = gates * (grad_gates - tl.sum(gates * grad_gates, 0))
    columns = experts * (2 if noisy else 1)
    target = grad_logits + image * columns + expert
    tl.store(target, grad_clean, mask=known)
    real = (channel < channels)[:, None] & known[None, :]
    matrix = router + channel[:, None] * columns + expert[None, :]
    gate = tl.load(matrix, mask=real, other=0.0).to(tl.float32)
    grad_mean = tl.sum(gate * grad_clean[None, :], 1)
    if noisy:
        slopes = tl.load(slopes_in + image * experts + expert, mask=known, other=0.0)
        tl.store(target + experts, grad_clean * slopes, mask=known)
        spread = tl.load(matrix + experts, mask=real, other=0.0).to(tl.float32)
        grad_mean += tl.sum(spread * (grad_clean * slopes)[None, :], 1)
    grad_mean = grad_mean / (height * width)

    for first in range(0, tokens, block_tokens):
        total = tl.zeros((block_tokens, block_channels), tl.float32)
        for tap in range(9):  # what read this token lies on the other side
            token, there = _neighbours(first, 8 - tap, tokens, prefix, height, width, block_tokens)
            weight = _mixed_tap(
                kernels, gates, tap, channels, experts, block_channels, block_experts
            )
            given = _tokens(grad, token, there, channels, block_channels)
            total = tl.dot(given, tl.trans(weight.to(given.dtype)), total, input_precision='ieee')
        token, inside = _places(first, prefix, height * width, block_tokens)
        total += tl.where(inside[:, None], grad_mean[None, :], 0.0)
        result = grad_z + token[:, None] * channels + channel[None, :]
        tl.store(result, total, mask=(token < tokens)[:, None] & (channel < channels)[None, :])
