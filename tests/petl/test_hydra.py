"""Hydra against its formula, its merge and its parameter count."""

import pytest
import torch
from torch import nn
from watching import close, randomize, watch

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import Hydra


def test_every_site_follows_the_formula(backbone, images):
    method = Hydra(2, scale=0.5).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        p, s = method.local[site.key].parallel, method.local[site.key].sequential
        y = note.x @ site.module.weight.T + site.module.bias
        branch = (note.x @ p.down.weight.T + p.down.bias) @ p.up.weight.T + p.up.bias
        behind = (y @ s.down.weight.T + s.down.bias) @ s.up.weight.T + s.up.bias
        close(note.adapted, y + 0.5 * branch + 0.5 * behind)


@pytest.mark.parametrize('bias', [True, False])
def test_each_site_folds_with_its_own_weight(vit, bias):
    """The attention's projection with its own weight, of another shape than that of fc2."""
    method = Hydra(2, scale=0.5)
    method.attach(vit)
    randomize(method)
    for site in method.sites.values():
        own, linear = method.local[site.key], site.module
        weight, shift = method.fold(site, linear.weight, linear.bias if bias else None)
        x = torch.randn(5, linear.in_features)
        y = x @ linear.weight.T + (linear.bias if bias else 0)
        expected = y + 0.5 * own.parallel.up(own.parallel.down(x))
        expected = expected + 0.5 * own.sequential.up(own.sequential.down(y))
        close(x @ weight.T + shift, expected)


def test_parameters_on_vit_b():
    counted = params.count_config(recipes.load('vit-b_hydra_vtab-cifar'))
    count = 12 * (11 * 768 * 2 + 4 * 2 + 4 * 768)
    assert counted.trainable == counted.local == count == 239_712


def test_dropout_acts_in_training_only(vit, images):
    method = Hydra(drop_rate=0.5)
    method.attach(vit)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert torch.equal(vit(images)[0], vit(images)[0])
    vit.train()
    assert not torch.equal(vit(images)[0], vit(images)[0])
