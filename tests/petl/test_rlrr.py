"""RLRR against its formula, with a column vector each for queries, keys and values."""

import torch
from watching import close, randomize, watch

from gleam_mm.petl import RLRR


def test_every_linear_follows_the_formula(backbone, images):
    method = RLRR().eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own, linear = method.local[site.key], site.module
        rows = own.rows.chunk(3) if site.role == 'qkv' else [own.rows]
        outer = torch.cat([torch.outer(r, c) for r, c in zip(rows, own.columns, strict=True)])
        weight = linear.weight + linear.weight * outer
        close(note.adapted, note.x @ weight.T + linear.bias + own.shift)


def test_the_norms_of_blocks_are_scaled_and_shifted_but_not_the_last(backbone, images):
    method = RLRR().eval()
    method.attach(backbone)
    randomize(method)
    norms = method.local['norms']
    seen = watch(norms, backbone, images)
    assert len(seen) == 2 * len(method.layout.sites(('block',)))
    for site, note in seen.items():
        own = norms.local[site.key]
        close(note.adapted, note.y * own.scale + own.shift)
