"""Backbones whose attention sees windows, and MMPretrain's Swin."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from mmpretrain.models.backbones import SwinTransformer
from mmpretrain.models.utils.attention import WindowMSA
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.layouts.attention import WindowAttention
from gleam_mm.layouts.base import Layout
from gleam_mm.layouts.site import Block, Grid, Site
from gleam_mm.registry import LAYOUTS

WINDOWED_ROLES = ('attn', 'qkv', 'q', 'k', 'v', 'proj')


class Partition(NamedTuple):
    """How a block cuts its grid into windows: their size, and how far the grid is shifted."""

    rows: int
    columns: int
    shift: tuple[int, int]


class WindowedLayout(Layout):
    """The layout of a Swin: attention sites see windows, and there the window is the grid."""

    windowed = True
    attention_class: ClassVar[type[WindowAttention]] = WindowAttention

    shifts_before_padding: ClassVar[bool] = False
    """Whether a grid that windows do not fill is shifted first and padded then."""

    def attention(self, site: Site) -> WindowAttention:
        """The arithmetic of the attention at a site with the role ``attn``."""
        return self.attention_class(site.module)

    @abstractmethod
    def partition(self, block: Site, grid: Grid) -> Partition:
        """How a block cuts a grid into windows."""

    @abstractmethod
    def merge_tokens(self, downsample: Site, tokens: Tensor) -> Tensor:
        """What patch merging makes of tokens (B, N, C), each taken for a patch of four like it."""

    @abstractmethod
    def finish_block(self, block: Site, tokens: Tensor, attended: Tensor) -> Tensor:
        """What a block makes of tokens outside of its grid.

        Args:
            block: The block.
            tokens: The tokens (B, N, C) before it.
            attended: What its attention gives for them, of the same shape.

        Returns:
            The tokens behind its residual connections and its FFN.
        """

    def enter_attention(self, block: Site, tokens: Tensor) -> Tensor:
        """What a block's attention reads of tokens (B, N, C): the output of its first norm."""
        return block.module.norm1(tokens)

    def unwindow(self, block: Site, windows: Tensor, images: int) -> Tensor:
        """Undoes a block's partition into (shifted) windows.

        Args:
            block: The block.
            windows: Tokens of all windows, image by image, of shape (B W, window area, C).
            images: Number of images B.

        Returns:
            Tokens in the order of the grid, of shape (B, height * width, C).
        """
        grid = self.grid(block)
        rows, columns, shift = self.partition(block, grid)
        down, across = -(-grid.height // rows), -(-grid.width // columns)
        x = windows.reshape(images, down, across, rows, columns, -1)
        x = x.transpose(2, 3).reshape(images, down * rows, across * columns, -1)
        if self.shifts_before_padding:
            x = torch.roll(x[:, : grid.height, : grid.width], shift, dims=(1, 2))
        else:
            x = torch.roll(x, shift, dims=(1, 2))[:, : grid.height, : grid.width]
        return x.flatten(1, 2)

    @abstractmethod
    def _window_size(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's windows."""

    def _grid(self, site: Site, height: int, width: int, suffix: int) -> Grid:
        if site.role in WINDOWED_ROLES:
            return Grid(0, *self._window_size(site.stage))
        return super()._grid(site, height, width, suffix)


@LAYOUTS.register_module()
class SwinLayout(WindowedLayout):
    """MMPretrain's SwinTransformer."""

    block_roles = {
        'norm': ('norm1', 'norm2'),
        'attn': ('attn.w_msa',),
        'qkv': ('attn.w_msa.qkv',),
        'proj': ('attn.w_msa.proj',),
        'ffn': ('ffn',),
        'fc1': ('ffn.layers.0.0',),
        'fc2': ('ffn.layers.1',),
    }
    inner_drop_path = {'ffn': 'dropout_layer'}  # that of the attention is behind the windows

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        return isinstance(backbone, SwinTransformer) and all(
            isinstance(block.attn.w_msa, WindowMSA)
            for stage in backbone.stages
            for block in stage.blocks
        )

    @property
    def outer_roles(self) -> Mapping[str, tuple[str, ...]]:
        return {
            'patch_embed': ('patch_embed',),
            'norm': tuple(f'norm{stage}' for stage in self.backbone.out_indices),
        }

    def blocks(self) -> Iterator[Block]:
        for stage, sequence in enumerate(self.backbone.stages):
            for index in range(len(sequence.blocks)):
                yield Block(f'stages.{stage}.blocks.{index}', stage, sequence.embed_dims)

    def all_sites(self) -> Iterator[Site]:
        yield from super().all_sites()
        for stage, sequence in enumerate(self.backbone.stages):
            if sequence.downsample is not None:
                block = Block('', stage, sequence.embed_dims)
                yield self._site(f'stages.{stage}.downsample', 'downsample', None, block)

    def track_grid(self) -> list[RemovableHandle]:
        return [
            sequence.register_forward_pre_hook(partial(self._read_grid, stage))
            for stage, sequence in enumerate(self.backbone.stages)
        ]

    def partition(self, block: Site, grid: Grid) -> Partition:
        attention = block.module.attn
        side = attention.window_size
        # MMPretrain does not shift where one window is the whole map.
        alone = min(grid.height, grid.width) == side and not attention.pad_small_map
        return Partition(side, side, (0, 0) if alone else (attention.shift_size,) * 2)

    def merge_tokens(self, downsample: Site, tokens: Tensor) -> Tensor:
        # The channels of a patch are numbered channel by channel.
        merging = downsample.module
        return merging.reduction(merging.norm(tokens.repeat_interleave(4, dim=-1)))

    def finish_block(self, block: Site, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + block.module.attn.drop(attended)
        return block.module.ffn(block.module.norm2(tokens), identity=tokens)

    def _window_size(self, stage: int) -> tuple[int, int]:
        return self.backbone.stages[stage].blocks[0].attn.w_msa.window_size

    def _read_grid(self, stage: int, module: nn.Module, args: tuple) -> None:
        self._set_grid(stage, args[1])
