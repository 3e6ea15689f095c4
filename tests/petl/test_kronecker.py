"""Sums of Kronecker products against torch.kron, MoKA's gate and SoKA's start."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import Kronecker


@pytest.mark.parametrize('gate', [False, True])
@pytest.mark.parametrize('init', ['zero', 'svd'])
def test_linears_follow_the_formula(gate, init, backbone, images):
    sites = ['qkv', 'fc2']
    method = Kronecker(3, 4, 0.5, gate, init, sites).eval()
    method.attach(backbone)
    starts = {
        key: [f.detach().clone() for f in (own.left, own.right)]
        for key, own in method.local.items()
    }
    randomize(method, 0.3)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        weights = torch.ones(3)
        if gate:
            weights = 3 * torch.exp(own.logits) / torch.exp(own.logits).sum()
        delta = sum(
            g * torch.kron(a, b) for g, a, b in zip(weights, own.left, own.right, strict=True)
        )
        if init == 'svd':
            first = zip(*starts[site.key], strict=True)
            delta = delta - sum(torch.kron(a, b) for a, b in first)
        weight = site.module.weight + 0.5 * delta
        close(note.adapted, note.x @ weight.T + site.module.bias, 1e-4)


def test_the_start_is_the_closest_sum_of_products(vit):
    scale = 0.5
    method = Kronecker(3, 4, scale, init='svd')
    method.attach(vit)
    whole = Kronecker(16, 4, scale, init='svd')
    method.detach()
    whole.attach(vit)
    for site in whole.sites.values():
        few, all_ = method.local[site.key], whole.local[site.key]
        products = [scale * torch.kron(a, b) for a, b in zip(all_.left, all_.right, strict=True)]
        # Sixteen products are as many as there are: together they are the weight.
        torch.testing.assert_close(sum(products), site.module.weight, rtol=0, atol=1e-5)
        norms = torch.stack([product.norm() for product in products])
        assert torch.equal(norms, norms.sort(descending=True).values)
        start = sum(scale * torch.kron(a, b) for a, b in zip(few.left, few.right, strict=True))
        torch.testing.assert_close(start, sum(products[:3]), rtol=0, atol=1e-5)
        # Frobenius-orthogonal products: what is left out is what the others weigh.
        rest = (site.module.weight - start).norm()
        torch.testing.assert_close(rest, norms[3:].square().sum().sqrt(), rtol=1e-4, atol=1e-5)


def test_mistakes_are_named(vit):
    with pytest.raises(ValueError, match='size=5 does not divide the widths 32 and 96'):
        Kronecker(2, 5).attach(vit)
    with pytest.raises(ValueError, match='number=17 exceeds the 16 products that the weight of'):
        Kronecker(17, 4, init='svd').attach(vit)
    for alpha in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"alpha={alpha}: init='svd' divides by it"):
            Kronecker(3, 4, alpha, init='svd')
        Kronecker(3, 4, alpha)
