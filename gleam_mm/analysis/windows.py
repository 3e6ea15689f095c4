"""From the windows of Swin's attention back to the grid of tokens."""

import torch
from mmpretrain.models.utils.attention import ShiftWindowMSA
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from gleam_mm.petl.layouts import Grid


def is_windowed(block: nn.Module) -> bool:
    """Whether the attention of a transformer block sees windows."""
    return isinstance(block, SwinTransformerBlock) or isinstance(
        getattr(block, 'attn', None), ShiftWindowMSA
    )


def unwindow(windows: Tensor, block: nn.Module, grid: Grid, images: int) -> Tensor:
    """Undoes the partition into (shifted) windows.

    Args:
        windows: Tokens of all windows, image by image, of shape (B W, window area, C).
        block: The block: one of MMPretrain's or timm's Swin.
        grid: The grid of the block's tokens.
        images: Number of images B.

    Returns:
        Tokens in the order of the grid, of shape (B, height * width, C).
    """
    _, height, width = grid
    if isinstance(block, SwinTransformerBlock):
        (rows, columns), shift = block.window_size, tuple(block.shift_size)
    else:
        attention = block.attn
        rows = columns = attention.window_size
        # MMPretrain does not shift where one window is the whole map.
        alone = min(height, width) == rows and not attention.pad_small_map
        shift = (0, 0) if alone else (attention.shift_size,) * 2
    down, across = -(-height // rows), -(-width // columns)
    x = windows.reshape(images, down, across, rows, columns, -1)
    x = x.transpose(2, 3).reshape(images, down * rows, across * columns, -1)
    if isinstance(block, SwinTransformerBlock):  # which shifts first, and pads then
        x = torch.roll(x[:, :height, :width], shift, dims=(1, 2))
    else:
        x = torch.roll(x, shift, dims=(1, 2))[:, :height, :width]
    return x.flatten(1, 2)
