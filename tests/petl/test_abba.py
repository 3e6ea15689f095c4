"""ABBA against the Hadamard product of two dense matrices, and its start."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import ABBA


def test_linears_follow_the_formula(backbone, images):
    method = ABBA(2, 3.0, sites=['qkv', 'fc1']).eval()
    method.attach(backbone)
    for site in method.sites.values():
        first, second = method.local[site.key]['first'], method.local[site.key]['second']
        u, s, v = torch.linalg.svd(site.module.weight)
        best = u[:, :2] @ torch.diag(s[:2]) @ v[:2]
        torch.testing.assert_close(first.up @ first.down, best, rtol=0, atol=1e-5)
        assert second.down.any() and not second.up.any()
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        first, second = method.local[site.key]['first'], method.local[site.key]['second']
        delta = 3.0**2 / 2 * (first.up @ first.down) * (second.up @ second.down)
        close(note.adapted, note.x @ (site.module.weight + delta).T + site.module.bias, 1e-4)


def test_a_rank_beyond_the_weight_is_named(vit):
    with pytest.raises(ValueError, match='rank=33 exceeds the 32 singular values'):
        ABBA(33).attach(vit)
