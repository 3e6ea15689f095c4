"""R-Adapter against its formula in training and in evaluation."""

import torch
from watching import close, randomize, watch

from gleam_mm.petl import RAdapter


def test_evaluation_takes_half_of_what_training_takes(backbone, images):
    method = RAdapter(3, drop_path_rate=0.0)
    method.attach(backbone)
    randomize(method)
    for training, factor in ((True, 1.0), (False, 0.5)):
        backbone.train(training)
        for site, note in watch(method, backbone, images).items():
            pair = method.local[site.key]
            update = note.y @ (pair.up @ pair.down).T
            close(note.adapted, note.y + factor * pair.scale * update)


def test_drop_path_drops_the_update_of_whole_images(vit, images):
    images = images[:1].repeat(32, 1, 1, 1)
    method = RAdapter(3, drop_path_rate=0.5, sites=('fc2',), blocks=[-1])
    plain = vit(images)[0][0]
    method.attach(vit)
    randomize(method)
    vit.train()
    with torch.no_grad():
        dropped = [torch.allclose(row, plain, atol=1e-5) for row in vit(images)[0]]
    assert 6 <= sum(dropped) <= 26
