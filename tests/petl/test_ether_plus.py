"""ETHER+ against its matrices."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import ETHERPlus


def matrix(own):
    u, v = own.u / own.u.norm(), own.v / own.v.norm()
    return torch.eye(len(u)) - torch.outer(u, u) + torch.outer(v, v)


@pytest.mark.parametrize('two_sided', [True, False])
def test_every_site_follows_the_formula(two_sided, backbone, images):
    method = ETHERPlus(two_sided, sites=('qkv', 'fc2')).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        weight = site.module.weight @ matrix(own['right'])
        if two_sided:
            weight = matrix(own['left']) @ weight
        close(note.adapted, note.x @ weight.T + site.module.bias)


def test_no_step_moves_a_weight_further_than_its_bound(vit):
    method = ETHERPlus(two_sided=False)
    method.attach(vit)
    for site in method.sites.values():
        for size in (1.0, 1e6):
            randomize(method, size)
            moved = method.fold(site, site.weight, None)[0] - site.weight
            assert torch.linalg.matrix_norm(moved, 2) <= 2 * torch.linalg.matrix_norm(
                site.weight, 2
            )
