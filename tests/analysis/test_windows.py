"""Windows back to the grid, against attention modules that hand their windows through."""

import pytest
import torch
from mmpretrain.models.utils.attention import ShiftWindowMSA
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn

from gleam_mm.analysis.windows import is_windowed, unwindow
from gleam_mm.petl.layouts import Grid


class Recorder(nn.Module):
    def forward(self, x, mask=None):
        self.seen = x
        return x


@pytest.mark.parametrize('size', [(8, 8), (8, 12), (6, 10), (4, 4)])
@pytest.mark.parametrize('shift', [0, 2])
def test_mmpretrain(size, shift):
    block = nn.Module()
    block.attn = ShiftWindowMSA(8, 2, window_size=4, shift_size=shift)
    block.attn.w_msa = Recorder()
    tokens = torch.randn(3, size[0] * size[1], 8)
    block.attn(tokens, size)
    assert is_windowed(block)
    found = unwindow(block.attn.w_msa.seen, block, Grid(0, *size), 3)
    torch.testing.assert_close(found, tokens, rtol=0, atol=0)


@pytest.mark.parametrize('size', [(8, 8), (8, 12), (6, 10)])
@pytest.mark.parametrize('shift', [0, 2])
def test_timm(size, shift):
    block = SwinTransformerBlock(8, size, num_heads=2, window_size=4, shift_size=shift)
    block.attn = Recorder()
    tokens = torch.randn(3, *size, 8)
    block._attn(tokens)
    assert is_windowed(block)
    found = unwindow(block.attn.seen, block, Grid(0, *size), 3)
    torch.testing.assert_close(found, tokens.flatten(1, 2), rtol=0, atol=0)


def test_a_vit_has_no_windows(vit):
    assert not is_windowed(vit.layers[0])
