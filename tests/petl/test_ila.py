"""ILA against shifted sums over the grid."""

import torch
from torch.nn import functional as F
from watching import close, randomize, watch

from gleam_mm.petl import ILA


def test_blocks_follow_the_equation(backbone, images):
    method = ILA(4, 2)
    backbone.eval()
    method.attach(backbone)
    method.eval()
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own, y = method.local[site.key], note.y.flatten(1, -2)
        side = int(y.shape[1] ** 0.5)
        z = F.gelu(y @ own.down.weight.T + own.down.bias)
        token, grid = z.split([y.shape[1] - side**2, side**2], 1)
        grid = F.pad(grid.unflatten(1, (side, side)), (0, 0, 1, 1, 1, 1))
        kernel = own.depthwise.weight  # (8, 1, 3, 3): channels 2 c and 2 c + 1 read channel c
        mixed = own.depthwise.bias + sum(
            grid[:, i : i + side, j : j + side, [0, 0, 1, 1, 2, 2, 3, 3]] * kernel[:, 0, i, j]
            for i in range(3)
            for j in range(3)
        )
        alone = token[..., [0, 0, 1, 1, 2, 2, 3, 3]] * kernel[:, 0, 1, 1] + own.depthwise.bias
        mixed = torch.cat([alone, mixed.flatten(1, 2)], 1)
        hidden = F.gelu(mixed @ own.pointwise.weight.T + own.pointwise.bias)
        close(note.adapted.flatten(1, -2), y + hidden @ own.up.weight.T + own.up.bias, 1e-4)
