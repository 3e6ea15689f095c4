"""SURM against Toeplitz matrices, written down number by number."""

import torch
from watching import close, randomize, watch

from gleam_mm.petl import SURM


def test_every_block_of_a_weight_gets_a_toeplitz_matrix(backbone, images):
    method = SURM(sites=('qkv', 'fc2')).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        d, weight = site.width, site.module.weight.clone()
        diagonals = method.local[site.key]['diagonals']
        for row, blocks in enumerate(diagonals):
            for column, numbers in enumerate(blocks):
                block = weight[row * d : (row + 1) * d, column * d : (column + 1) * d]
                for offset, number in zip(range(1 - d, d), numbers, strict=True):
                    block.diagonal(-offset).add_(number)
        close(note.adapted, note.x @ weight.T + site.module.bias)


def test_an_update_may_have_full_rank(vit):
    method = SURM(sites=('proj',))
    method.attach(vit)
    randomize(method)
    for site in method.sites.values():
        update = method.fold(site, torch.zeros(32, 32), None)[0]
        assert torch.linalg.matrix_rank(update) == 32
