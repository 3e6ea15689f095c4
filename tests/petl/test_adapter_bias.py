"""AdapterBias against its formula, its merge and its parameter count."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import AdapterBias


def test_every_site_follows_the_formula(backbone, images):
    method = AdapterBias().eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        length = (note.y * own.length.weight[0]).sum(-1, keepdim=True) + own.length.bias
        close(note.adapted, note.y + length * own.shift)


@pytest.mark.parametrize('bias', [True, False])
def test_it_folds_with_and_without_a_bias(vit, bias):
    method = AdapterBias(('qkv', 'fc2'))
    method.attach(vit)
    randomize(method)
    for site in method.sites.values():
        own, linear = method.local[site.key], site.module
        weight, shift = method.fold(site, linear.weight, linear.bias if bias else None)
        x = torch.randn(5, linear.in_features)
        y = x @ linear.weight.T + (linear.bias if bias else 0)
        expected = y + torch.outer(y @ own.length.weight[0] + own.length.bias, own.shift)
        close(x @ weight.T + shift, expected)
