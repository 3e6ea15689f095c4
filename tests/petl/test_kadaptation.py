"""KAdaptation against its Kronecker products."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import KAdaptation


def test_queries_and_values_follow_the_formula(backbone, images):
    method = KAdaptation(4, alpha=0.5).eval()
    method.attach(backbone)
    randomize(method, 0.5)
    for site, note in watch(method, backbone, images).items():
        own, d = method.local[site.key], site.width
        delta = {}
        for part in ('query', 'value'):
            slow, fast = method.shared[part], own[part]
            delta[part] = sum(
                torch.kron(torch.outer(s, t), torch.outer(u, v))
                for s, t, u, v in zip(slow.left, slow.right, fast.left, fast.right, strict=True)
            )
        weight, bias = site.module.weight.clone(), site.module.bias.clone()
        weight[:d] += 0.5 * delta['query']
        weight[2 * d :] += 0.5 * delta['value']
        bias[2 * d :] += own.bias
        close(note.adapted, note.x @ weight.T + bias, 1e-4)


def test_blocks_share_the_slow_factors_only(backbone):
    method = KAdaptation(4)
    method.attach(backbone)
    assert sum(p.numel() for p in method.shared.parameters()) == 4 * 4**2
    assert len(method.local) == len(method.layout.sites(('block',)))


def test_a_number_that_does_not_divide_is_named(vit):
    with pytest.raises(ValueError, match='number=5 does not divide the token width 32'):
        KAdaptation(5).attach(vit)
