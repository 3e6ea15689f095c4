"""Windows back to the grid, against what the windows of real Swins were cut from."""

import pytest
import torch
from backbones import BACKBONES, evaluating
from mmpretrain.models import SwinTransformer

from gleam_mm.layouts import find_layout


def swin(size):
    arch = dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2])
    return SwinTransformer(arch, size, 2, window_size=4, out_indices=(1,))


def timm_swin(size):
    return BACKBONES['timm-swin'](img_size=size)


@pytest.mark.parametrize('make', [swin, timm_swin])
@pytest.mark.parametrize('size', [(32, 32), (32, 48), (24, 40), (16, 16)])
@torch.no_grad()
def test_windows_come_back_to_their_place(make, size):
    backbone = evaluating(make(size))
    layout = find_layout(backbone)
    handles, pairs = layout.track_grid(), []
    for site in layout.sites(['attn']):
        block, seen = layout.block_of(site), {}

        def keep_grid(module, args, output, seen=seen):
            seen['tokens'] = output.flatten(1, -2)

        def keep_windows(module, args, seen=seen):
            seen['windows'] = args[0]

        handles.append(block.module.norm1.register_forward_hook(keep_grid))
        handles.append(site.module.register_forward_pre_hook(keep_windows))
        pairs.append((block, seen))
    backbone(torch.randn(3, 3, *size))
    assert len(pairs) == 4  # every other block shifts its windows
    for block, seen in pairs:
        found = layout.unwindow(block, seen['windows'], 3)
        torch.testing.assert_close(found, seen['tokens'], rtol=0, atol=0)
    for handle in handles:
        handle.remove()


def test_who_has_windows(backbone):
    layout = find_layout(backbone)
    assert layout.windowed == ('Swin' in type(layout).__name__)
