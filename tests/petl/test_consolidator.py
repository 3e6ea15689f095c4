"""Consolidator against a grouped convolution of shuffled channels, and its merge."""

import pytest
import torch
from torch.nn import functional as F
from watching import close, randomize, watch

from gleam_mm.petl import Consolidator


def test_every_site_follows_the_formula(backbone, images):
    method = Consolidator(8).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        x = note.x.flatten(0, -2)
        each = x.shape[1] // 8
        order = [piece * each + channel for channel in range(each) for piece in range(8)]
        kernel = own.weight.flatten(0, 1)[..., None]
        update = F.conv1d(x[:, order, None], kernel, own.bias, groups=8)[..., 0]
        y = note.x @ site.module.weight.T + site.module.bias
        close(note.adapted, y + update.view_as(y))


def test_drop_path_drops_the_update_of_whole_images(vit, images):
    images = images[:1].repeat(32, 1, 1, 1)
    method = Consolidator(8, drop_path_rate=0.5, sites=('fc2',), blocks=[-1])
    plain = vit(images)[0][0]
    method.attach(vit)
    randomize(method)
    vit.train()
    with torch.no_grad():
        dropped = [torch.allclose(row, plain, atol=1e-5) for row in vit(images)[0]]
    assert 6 <= sum(dropped) <= 26


def test_groups_that_do_not_fit_are_named(vit):
    with pytest.raises(ValueError, match='groups=0'):
        Consolidator(0)
    with pytest.raises(ValueError, match=r"groups=5 does not divide the width 32 of 'layers\.0"):
        Consolidator(5).attach(vit)
