"""MMPretrain's vision transformers with one grid of tokens from the first block to the last."""

from collections.abc import Iterator, Mapping

from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from torch import nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.layouts.attention import MMPretrainAttention
from gleam_mm.layouts.base import Layout, masking
from gleam_mm.layouts.site import Block
from gleam_mm.registry import LAYOUTS


@LAYOUTS.register_module()
class ViTLayout(Layout):
    """MMPretrain's VisionTransformer, and its subclasses that keep its attention module."""

    block_roles = {
        'norm': ('ln1', 'ln2'),
        'attn': ('attn',),
        'qkv': ('attn.qkv',),
        'proj': ('attn.proj',),
        'ffn': ('ffn',),
        'fc1': ('ffn.layers.0.0',),
        'fc2': ('ffn.layers.1',),
    }
    attention_class = MMPretrainAttention
    inner_drop_path = {'attn': 'out_drop', 'ffn': 'dropout_layer'}
    first_frozen_stage = 1

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        # BEiT's attention multiplies by qkv.weight itself, so that hooks on qkv would never fire.
        if masking(backbone):
            return False
        return isinstance(backbone, VisionTransformer) and all(
            isinstance(layer.attn, MultiheadAttention) and hasattr(layer.ffn, 'layers')
            for layer in backbone.layers
        )

    @classmethod
    def refusal(cls, backbone: nn.Module) -> str | None:
        return masking(backbone) if isinstance(backbone, VisionTransformer) else None

    @property
    def outer_roles(self) -> Mapping[str, tuple[str, ...]]:
        return {'patch_embed': ('patch_embed',), 'norm': ('ln1',)}

    @property
    def num_prefix_tokens(self) -> int:
        return self.backbone.num_extra_tokens

    def blocks(self) -> Iterator[Block]:
        for index in range(len(self.backbone.layers)):
            yield Block(f'layers.{index}', 0, self.backbone.embed_dims)

    def track_grid(self) -> list[RemovableHandle]:
        return [self.backbone.patch_embed.register_forward_hook(self._read_grid)]

    def _read_grid(self, module: nn.Module, args: tuple, output: tuple) -> None:
        self._set_grid(0, output[1])
