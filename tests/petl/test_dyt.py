"""DyT against its equation token by token, what it skips, and the loss of its rate."""

import math

import pytest
import torch
from backbones import BACKBONES
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from watching import close, randomize, watch

from gleam_mm.petl import DyT


def attached(backbone, **options):
    backbone.eval()
    backbone.requires_grad_(False)
    method = DyT(4, scale=0.5, drop_rate=0.0, **options)
    method.attach(backbone)
    method.eval()
    randomize(method)
    return method


@pytest.mark.parametrize('kind', BACKBONES)
def test_blocks_follow_the_equation(kind, images):
    backbone = BACKBONES[kind]()
    method = attached(backbone)
    residuals = {}
    for site in method.sites.values():
        if site.role == 'norm':
            site.module.register_forward_pre_hook(
                lambda m, args, site=site: residuals.__setitem__(site.block, args[0].clone())
            )
    skipped = 0
    for site, note in watch(method, backbone, images).items():
        if site.role != 'block':
            continue
        own, x = method.local[site.key], residuals[site.block]
        within = [other for other in method.sites.values() if other.block == site.block]
        norm = [other.module for other in within if other.role == 'norm'][-1]
        first, second = (
            next(m for name, m in site.module.named_modules() if name.endswith(ends))
            for ends in (('mlp.fc1', 'ffn.layers.0.0'), ('mlp.fc2', 'ffn.layers.1'))
        )
        ffn = second(F.gelu(first(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))))
        logits = x @ own.router.weight[0] + own.router.bias
        mask = (1 / (1 + torch.exp(-logits)) > 0.5).float()
        mask[:, : method.layout.num_prefix_tokens] = 1
        skipped += int((mask == 0).sum())
        bypass = F.linear(F.relu(x @ own.down.weight.T + own.down.bias), own.up.weight, own.up.bias)
        close(note.adapted.flatten(1, -2), x + mask[..., None] * ffn + 0.5 * bypass, 1e-4)
    assert skipped


def flops(backbone, images):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(images)
    return counter.get_total_flops()


def test_what_is_skipped_is_not_computed(vit, images):
    method = attached(vit)
    biases = [method.local[site.key].router.bias for site in method.layout.sites(('block',))]
    counted = {}
    for bias in (100.0, -100.0):
        for own in biases:
            torch.nn.init.constant_(own, bias)
        counted[bias] = flops(vit, images)
    # Without gates open, 16 of 17 tokens of two images go without two FFNs of 2 x 32 x 128.
    assert counted[100.0] - counted[-100.0] == 2 * 2 * 16 * 2 * (2 * 32 * 128)


def test_the_loss_holds_the_rate(vit, images):
    method = attached(vit, rate=0.5, weight=2.0)
    assert method.losses() == {}
    for bias, share in ((1000.0, 1.0), (-1000.0, 0.0)):
        for site in method.layout.sites(('block',)):
            torch.nn.init.constant_(method.local[site.key].router.bias, bias)
        vit.train()
        vit(images)
        loss = method.losses()['rate']
        floor = 2 * 2 * max(0, 0.1 - share)  # two images in each of two blocks
        assert loss.item() == pytest.approx(2 * ((share - 0.5) ** 2 + floor), abs=1e-5)
        assert method.losses() == {}


def test_decisions_in_training_are_drawn_and_have_a_gradient(vit, images):
    method = attached(vit)
    for site in method.layout.sites(('block',)):
        torch.nn.init.zeros_(method.local[site.key].router.weight)
        torch.nn.init.constant_(method.local[site.key].router.bias, 1.0)
    vit.train()
    vit(images.repeat(64, 1, 1, 1))
    masks = torch.cat([made.detach().flatten() for made in method._choices.made])
    assert set(masks.round(decimals=4).tolist()) == {0.0, 1.0}
    # The logit has a logistic sample added, whose distribution is the sigmoid.
    assert masks.mean().item() == pytest.approx(1 / (1 + math.exp(-1.0)), abs=0.03)
    method.losses()['rate'].backward()
    gates = [method.local[site.key].router for site in method.layout.sites(('block',))]
    assert all(gate.bias.grad.abs() > 0 for gate in gates)


def test_a_pass_whose_losses_nobody_took_leaves_none(vit, images):
    method = attached(vit)
    vit.train()
    vit(images)
    vit(images)
    assert len(method._choices.made) == 2
