"""timm's transformers, as they are or inside of MMPretrain's ``TIMMBackbone``."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from timm.models import swin_transformer as timm_swin
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.layouts.attention import TIMMAttention
from gleam_mm.layouts.base import Layout, OwnClassifier
from gleam_mm.layouts.site import Block, Grid, Site
from gleam_mm.layouts.swin import Partition, WindowedLayout
from gleam_mm.layouts.timm_backbone import (
    PooledTIMMBackbone,
    dropping,
    inner_model,
    own_classifier,
    timm_model,
)
from gleam_mm.registry import LAYOUTS


class TIMMLayout(Layout):
    """What timm's transformers have in common."""

    block_roles = {
        'norm': ('norm1', 'norm2'),
        'attn': ('attn',),
        'qkv': ('attn.qkv',),
        'proj': ('attn.proj',),
        'ffn': ('mlp',),
        'fc1': ('mlp.fc1',),
        'fc2': ('mlp.fc2',),
    }

    own_pooling: ClassVar[str]
    """What timm calls the pooling of :attr:`neck`."""

    own_head: ClassVar[str]
    """The path of the Linear in timm's classifier."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.model, self.root = inner_model(backbone)

    @property
    def outer_roles(self) -> Mapping[str, tuple[str, ...]]:
        # Where tokens are averaged, timm normalises behind it, and `norm` is an Identity.
        norms = (f'{self.root}norm', f'{self.root}fc_norm')
        return {'patch_embed': (f'{self.root}patch_embed',), 'norm': norms}

    def own_classifier(self, config: Mapping[str, Any]) -> OwnClassifier:
        if isinstance(self.backbone, PooledTIMMBackbone):
            return own_classifier(self.backbone, config, self.own_head, {})
        pooling = {'global_pool': self.own_pooling}
        return own_classifier(self.backbone, {**config, **pooling}, self.own_head, self.neck)


@LAYOUTS.register_module()
class TIMMViTLayout(TIMMLayout):
    """timm's VisionTransformer."""

    attention_class = TIMMAttention
    neck = {'type': 'TokenPool', 'mode': 'cls'}
    own_pooling, own_head = 'token', 'head'

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        model = timm_model(backbone)
        return isinstance(model, timm_vit.VisionTransformer) and all(
            isinstance(getattr(block, 'attn', None), timm_vit.Attention)
            and hasattr(block, 'mlp')
            and hasattr(block.mlp, 'fc1')
            for block in model.blocks
        )

    @property
    def no_grid(self) -> str:
        return dropping(self.model)

    @property
    def num_prefix_tokens(self) -> int:
        return self.model.num_prefix_tokens

    def blocks(self) -> Iterator[Block]:
        for index in range(len(self.model.blocks)):
            yield Block(f'{self.root}blocks.{index}', 0, self.model.embed_dim)

    def grid_modules(self) -> list[nn.Module]:
        # The convolution, not patch_embed: what that returns depends on timm's `dynamic_img_size`.
        return [self.model.patch_embed.proj]

    def track_grid(self) -> list[RemovableHandle]:
        return [m.register_forward_hook(self._read_grid) for m in self.grid_modules()]

    def _read_grid(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._set_grid(0, output.shape[-2:])


@LAYOUTS.register_module()
class TIMMSwinLayout(TIMMLayout, WindowedLayout):
    """timm's SwinTransformer."""

    shifts_before_padding = True
    neck = {'type': 'TokenPool', 'mode': 'mean'}
    own_pooling, own_head = 'avg', 'head.fc'

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        return isinstance(timm_model(backbone), timm_swin.SwinTransformer)

    def blocks(self) -> Iterator[Block]:
        for stage, sequence in enumerate(self.model.layers):
            for index, block in enumerate(sequence.blocks):
                yield Block(f'{self.root}layers.{stage}.blocks.{index}', stage, block.dim)

    def all_sites(self) -> Iterator[Site]:
        yield from super().all_sites()
        # A stage downsamples first: it reads tokens of the stage before.
        for stage, sequence in enumerate(self.model.layers[1:]):
            name = f'{self.root}layers.{stage + 1}.downsample'
            yield self._site(name, 'downsample', None, Block('', stage, sequence.dim))

    def track_grid(self) -> list[RemovableHandle]:
        return [
            sequence.downsample.register_forward_hook(partial(self._read_grid, stage))
            for stage, sequence in enumerate(self.model.layers)
        ]

    def partition(self, block: Site, grid: Grid) -> Partition:
        rows, columns = block.module.window_size
        return Partition(rows, columns, tuple(block.module.shift_size))

    def merge_tokens(self, downsample: Site, tokens: Tensor) -> Tensor:
        merging = downsample.module
        return merging.reduction(merging.norm(tokens.repeat(1, 1, 4)))

    def finish_block(self, block: Site, tokens: Tensor, attended: Tensor) -> Tensor:
        own = block.module
        tokens = tokens + own.drop_path1(attended)
        return tokens + own.drop_path2(own.mlp(own.norm2(tokens)))

    def _window_size(self, stage: int) -> tuple[int, int]:
        return self.model.layers[stage].blocks[0].attn.window_size

    def _read_grid(self, stage: int, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._set_grid(stage, output.shape[1:3])
