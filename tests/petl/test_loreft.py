"""LoReFT against its formula, its start and its subspace."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import LoReFT


def test_every_block_is_edited_within_a_subspace(backbone, images):
    method = LoReFT(3).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        rows = own.subspace()
        torch.testing.assert_close(rows @ rows.T, torch.eye(3))
        # The rows span what the basis spans.
        projector = rows.T @ rows
        torch.testing.assert_close(projector @ own.basis, own.basis, rtol=1e-4, atol=1e-5)
        h = note.y
        target = h @ own.target.weight.T + own.target.bias
        close(note.adapted, h + (target - h @ rows.T) @ rows)
        # Within the subspace it becomes the target, outside nothing changes.
        close(note.adapted @ rows.T, target)
        close(note.adapted - note.adapted @ projector, h - h @ projector)


def test_a_rank_that_does_not_fit_is_named(vit):
    with pytest.raises(ValueError, match=r"rank=33 exceeds the token width 32 at 'layers\.0'"):
        LoReFT(33).attach(vit)
