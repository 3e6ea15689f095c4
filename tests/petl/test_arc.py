"""ARC against its formula: what sites share, and its dropout."""

import torch
from watching import close, randomize, watch

from gleam_mm.petl import ARC


def test_every_site_follows_the_formula(backbone, images):
    method = ARC(5).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own, shared = method.local[site.key], method.shared[site.role][str(site.stage)]
        read = torch.eye(site.width) + shared @ torch.diag(own.scale) @ shared.T
        x = note.x @ read.T + own.shift
        close(note.y, x @ site.module.weight.T + site.module.bias, 1e-4)


def test_blocks_share_one_projection_for_the_attention_and_one_for_the_ffn(vit):
    method = ARC(5)
    method.attach(vit)
    assert {name: tuple(p.shape) for name, p in method.shared.named_parameters()} == {
        'qkv.0': (32, 5),
        'fc1.0': (32, 5),
    }


def test_dropout_acts_in_training_only(vit, images):
    method = ARC(5, drop_rate=0.5)
    method.attach(vit)
    randomize(method)
    assert torch.equal(vit(images)[0], vit(images)[0])
    vit.train()
    assert not torch.equal(vit(images)[0], vit(images)[0])
