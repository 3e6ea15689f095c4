"""GLEAM's equations 8 to 12, written down as they stand in the paper, for one image at a time."""

import torch
from torch.nn import functional as F


def gate(h, w_g, w_n, k, noise):
    """Equations 10 to 12. ``noise`` is the sample of N(0, 1), or None in evaluation."""
    logits = h @ w_g
    if noise is not None:
        logits = logits + noise * F.softplus(h @ w_n)
    kept = logits.sort(descending=True).indices[:k]
    masked = torch.full_like(logits, -torch.inf)
    masked[kept] = logits[kept]
    return masked.softmax(0)


def expert(image, kernel, scale):
    """Equation 8 on an image (r, H, W): upsample, convolve, average-pool."""
    upsampled = F.interpolate(image[None], scale_factor=scale, mode='nearest')
    return F.avg_pool2d(F.conv2d(upsampled, kernel, padding=1), scale)[0]


def mixture(z, grid, kernels, scales, w_g, w_n, k, noise=None, decides='image'):
    """Equation 9 on tokens (B, N, r); each prefix token is an image of 1 x 1.

    An image decides by the mean of its grid, with ``noise`` of shape (B, n), or each of its tokens
    by itself, with ``noise`` of shape (B, N, n).
    """
    prefix, height, width = grid
    out = []
    for index, tokens in enumerate(z):
        image = tokens[prefix:].T.reshape(-1, height, width)
        if decides == 'image':
            h, samples = [image.mean((1, 2))], None if noise is None else [noise[index]]
        else:
            h, samples = tokens, None if noise is None else noise[index]
        weights = torch.stack(
            [gate(x, w_g, w_n, k, None if samples is None else samples[i]) for i, x in enumerate(h)]
        )  # (1 or N, n)
        parts = [token.reshape(-1, 1, 1) for token in tokens[:prefix]] + [image]
        mixed = []
        for i, (kernel, scale) in enumerate(zip(kernels, scales, strict=True)):
            outputs = [expert(part, kernel, scale).flatten(1).T for part in parts]
            mixed.append(weights[:, i, None] * torch.cat(outputs))
        out.append(sum(mixed))
    return torch.stack(out)
