"""GLEAM's equations 8 to 12, written down as they stand in the paper, for one image at a time.

What Conv-LoRA has around them is here as keyword arguments, as its paper and Shazeer et al. (ICLR
2017, appendix A) write it.
"""

import math

import torch
from torch.nn import functional as F


def logits(h, w_g, w_n, noise, floor=0.0):
    """Equation 11. ``noise`` is the sample of N(0, 1), or None in evaluation."""
    clean = h @ w_g
    return clean if noise is None else clean + noise * (F.softplus(h @ w_n) + floor)


def gate(h, w_g, w_n, k, noise, floor=0.0, renormalize=True):
    """Equations 10 to 12; not renormalised, the softmax comes before the choice."""
    noisy = logits(h, w_g, w_n, noise, floor)
    kept = noisy.sort(descending=True).indices[:k]
    if renormalize:
        masked = torch.full_like(noisy, -torch.inf)
        masked[kept] = noisy[kept]
        return masked.softmax(0)
    mask = torch.zeros_like(noisy)
    mask[kept] = 1
    return noisy.softmax(0) * mask


def load(h, w_g, w_n, k, noise, floor=0.0):
    """For each expert the probability to be chosen, if its own noise alone were drawn again."""
    noisy = logits(h, w_g, w_n, noise, floor)
    clean, spread = h @ w_g, F.softplus(h @ w_n) + floor
    chances = []
    for i in range(len(noisy)):
        others = torch.cat([noisy[:i], noisy[i + 1 :]])
        to_beat = others.sort(descending=True).values[k - 1]
        chances.append((1 + torch.erf((clean[i] - to_beat) / spread[i] / math.sqrt(2))) / 2)
    return torch.stack(chances)


def imbalance(decisions, w_g, w_n, k, noise, floor=0.0, renormalize=True):
    """CV^2 of importance plus CV^2 of load over decisions (B, r), with their noise (B, n)."""
    pairs = list(zip(decisions, noise, strict=True))
    importance = sum(gate(h, w_g, w_n, k, sample, floor, renormalize) for h, sample in pairs)
    usages = [importance]
    if k < w_g.shape[1]:
        usages.append(sum(load(h, w_g, w_n, k, sample, floor) for h, sample in pairs))
    return sum(usage.var() / usage.mean() ** 2 for usage in usages)


def expert(image, kernel, scale, bias=None):
    """Equation 8 on an image (r, H, W): upsample, convolve, average-pool."""
    upsampled = F.interpolate(image[None], scale_factor=scale, mode='nearest')
    return F.avg_pool2d(F.conv2d(upsampled, kernel, bias, padding=1), scale)[0]


def mixture(
    z,
    grid,
    kernels,
    scales,
    w_g,
    w_n,
    k,
    noise=None,
    decides='image',
    biases=None,
    residual=0.0,
    normalize=False,
    floor=0.0,
    renormalize=True,
):
    """Equation 9 on tokens (B, N, r); each prefix token is an image of 1 x 1.

    An image decides by the mean of its grid, with ``noise`` of shape (B, n), or each of its tokens
    by itself, with ``noise`` of shape (B, N, n).
    """
    prefix, height, width = grid[:3]
    biases = [None] * len(kernels) if biases is None else biases
    if normalize:
        z = torch.stack([x / (x.pow(2).mean() + 1e-6).sqrt() for x in z.flatten(0, 1)]).view_as(z)
    out = []
    for index, tokens in enumerate(z):
        image = tokens[prefix:].T.reshape(-1, height, width)
        if decides == 'image':
            h, samples = [image.mean((1, 2))], None if noise is None else [noise[index]]
        else:
            h, samples = tokens, None if noise is None else noise[index]
        samples = [None] * len(h) if samples is None else samples
        weights = torch.stack(
            [gate(x, w_g, w_n, k, s, floor, renormalize) for x, s in zip(h, samples, strict=True)]
        )  # (1 or N, n)
        parts = [token.reshape(-1, 1, 1) for token in tokens[:prefix]] + [image]
        mixed = []
        for i, (kernel, scale, bias) in enumerate(zip(kernels, scales, biases, strict=True)):
            outputs = [expert(part, kernel, scale, bias).flatten(1).T for part in parts]
            mixed.append(weights[:, i, None] * torch.cat(outputs))
        out.append(residual * tokens + sum(mixed))
    return torch.stack(out)
