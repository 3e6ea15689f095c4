"""MLAE against its sum of experts, with and without those that are dropped."""

import torch
from torch.nn import functional as F
from watching import close, randomize, watch

from gleam_mm.petl import MLAE


def test_every_site_is_a_sum_of_experts(backbone, images):
    method = MLAE(3).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        pair = method.local[site.key]
        experts = zip(pair.coefficients, pair.up.T, pair.down, strict=True)
        weight = site.module.weight + sum(c * torch.outer(b, a) for c, b, a in experts)
        close(note.adapted, note.x @ weight.T + site.module.bias)


def test_training_drops_whole_experts_and_scales_the_others_up(vit):
    method = MLAE(64, expert_drop_rate=0.75, sites=('qkv',), coefficient=2.0)
    method.attach(vit)
    randomize(method)
    site = next(iter(method.sites.values()))
    pair = method.local[site.key]
    _, up = method.factors(site, training=True)
    dropped = (up == 0).all(0)
    assert 32 <= dropped.sum() < 64
    torch.testing.assert_close(up[:, ~dropped], (4 * pair.up * pair.coefficients)[:, ~dropped])


def test_merging_while_training_drops_none(vit, images):
    method = MLAE(4, expert_drop_rate=0.5)
    method.attach(vit)
    randomize(method, 0.1)
    adapted = vit(images)[0]
    vit.train()
    method.merge()
    torch.testing.assert_close(vit(images)[0], adapted, rtol=1e-5, atol=1e-5)


def test_coefficients_start_where_they_are_told(vit):
    method = MLAE(4, coefficient=0.5)
    method.attach(vit)
    assert all(torch.equal(p.coefficients, torch.full((4,), 0.5)) for p in method.local.values())
    assert all(not p.up.any() for p in method.local.values())
    assert F.mse_loss(method.local['layers/0/attn/qkv'].down, torch.zeros(4, 32)) > 0
