"""Layouts: where the sites of a backbone are, and what grid its tokens form.

A method asks for *roles* (``qkv``, ``fc1``, ...); the layout of the backbone answers with *sites*.
So no method mentions ViT or Swin, and a new backbone is one more class in this file, or one in a
package of your own:

    >>> @LAYOUTS.register_module()
    ... class MyLayout(Layout):
    ...     ...
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

from mmengine.registry import Registry
from mmpretrain.models.backbones import SwinTransformer, TIMMBackbone, VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from mmpretrain.models.utils.attention import WindowMSA
from timm.models import swin_transformer as timm_swin
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.registry import LAYOUTS

ROLES = ('patch_embed', 'block', 'norm', 'attn', 'ffn', 'qkv', 'proj', 'fc1', 'fc2')
WINDOWED_ROLES = ('attn', 'qkv', 'proj')


class Grid(NamedTuple):
    """The layout of a sequence: ``prefix`` tokens, then ``height x width`` of them row by row."""

    prefix: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Site:
    """A place in a backbone where a method plugs in.

    Attributes:
        name: The module's path inside the backbone, such as ``layers.0.attn.qkv``.
        role: What the module does, one of :data:`ROLES`.
        module: The module itself. A site does not own it.
        block: Index of the transformer block over the whole network; None outside of the blocks.
        stage: Index of the stage; 0 everywhere in a backbone without stages.
        width: The token width d of the stage.
    """

    name: str
    role: str
    module: nn.Module
    block: int | None
    stage: int
    width: int

    @property
    def key(self) -> str:
        """The name in a form that PyTorch accepts as the key of a ModuleDict."""
        return self.name.replace('.', '/')

    @property
    def affine(self) -> nn.Module | None:
        """The module whose weight and bias have the last word on the site's output.

        That is the site's own module for a Linear or a norm, and the norm or else the convolution
        of a patch embedding; None where no single weight decides, as in a whole block.
        """
        if self.role not in ('patch_embed', 'norm', 'qkv', 'proj', 'fc1', 'fc2'):
            return None
        affine = [
            module
            for module in self.module.modules()
            if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Conv2d))
        ]
        return affine[-1] if affine else None

    @property
    def blocks_in(self) -> int:
        """How many d-wide blocks the Linear reads (fc2: 4)."""
        return self._count_blocks('in_features')

    @property
    def blocks_out(self) -> int:
        """How many d-wide blocks the Linear writes (qkv: 3, fc1: 4)."""
        return self._count_blocks('out_features')

    def _count_blocks(self, attribute: str) -> int:
        features = getattr(self.module, attribute, None)
        if features is None:
            raise ValueError(
                f'site {self.name!r} (role {self.role!r}) is a {type(self.module).__name__}, not a '
                'Linear, so it has no blocks; choose among the roles qkv, proj, fc1, fc2'
            )
        if features % self.width:
            raise ValueError(
                f'site {self.name!r} has {attribute}={features}, which is no multiple of the token '
                f'width {self.width}: a blockwise method (GLEAM, SLoRA, FacT) does not fit there; '
                f'leave the role {self.role!r} out of `sites`, or use LoRA'
            )
        return features // self.width


@dataclass(frozen=True)
class Block:
    """A transformer block, as a layout lists it: its path, the index of its stage and its width."""

    path: str
    stage: int
    width: int


class Layout:
    """What knows one class of backbones: lists its sites and tells the token grid at run time.

    A subclass names the modules of a block in :attr:`block_roles`, lists the blocks, and keeps the
    grid up to date with the hooks of :meth:`track_grid`.

    Args:
        backbone: The backbone to describe. It is referred to, never registered as a submodule.
    """

    block_roles: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Role -> paths relative to a block. Paths that a given block lacks are skipped."""

    outer_roles: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Role -> paths relative to the backbone, for modules outside of the blocks."""

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        self._grids: dict[int, tuple[int, int]] = {}

    @classmethod
    @abstractmethod
    def supports(cls, backbone: nn.Module) -> bool:
        """Tells whether this layout describes ``backbone``."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Lists the transformer blocks from input to output."""

    @abstractmethod
    def track_grid(self) -> list[RemovableHandle]:
        """Hooks the backbone so that :meth:`grid` knows the size of the current input."""

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the grid: class and distillation tokens, registers."""
        return 0

    def grid(self, site: Site) -> Grid:
        """The grid of the tokens that reach ``site`` in the current forward pass.

        Raises:
            RuntimeError: No forward pass has told the size yet.
        """
        try:
            height, width = self._grids[site.stage]
        except KeyError:
            raise RuntimeError(
                f'the token grid at {site.name!r} is not known yet: call the backbone itself, not '
                'a part of it, after attaching the method'
            ) from None
        return Grid(self.num_prefix_tokens, height, width)

    def all_sites(self) -> Iterator[Site]:
        """Every site of the backbone, from input to output."""
        last = None
        for index, block in enumerate(self.blocks()):
            if index == 0:
                yield from self._outer_sites(('patch_embed',), block)
            yield Site(
                block.path,
                'block',
                self.backbone.get_submodule(block.path),
                index,
                block.stage,
                block.width,
            )
            for role, paths in self.block_roles.items():
                for path in paths:
                    name = f'{block.path}.{path}'
                    if (module := self._find(name)) is not None:
                        yield Site(name, role, module, index, block.stage, block.width)
            last = block
        if last is not None:
            yield from self._outer_sites(('norm',), last)

    def sites(self, roles: Iterable[str]) -> list[Site]:
        """The sites of the given roles, from input to output.

        Raises:
            ValueError: A role is unknown or the backbone has no site for it.
        """
        wanted = tuple(roles)
        sites = list(self.all_sites())
        available = {site.role for site in sites}
        for role in wanted:
            if role not in available:
                raise ValueError(
                    f'{type(self.backbone).__name__} has no site with the role {role!r}; '
                    f'its roles are: {", ".join(r for r in ROLES if r in available)}'
                )
        return [site for site in sites if site.role in wanted]

    def _outer_sites(self, roles: tuple[str, ...], block: Block) -> Iterator[Site]:
        for role in roles:
            for name in self.outer_roles.get(role, ()):
                if (module := self._find(name)) is not None:
                    yield Site(name, role, module, None, block.stage, block.width)

    def _find(self, name: str) -> nn.Module | None:
        try:
            return self.backbone.get_submodule(name)
        except AttributeError:
            return None

    def _set_grid(self, stage: int, size: tuple[int, int]) -> None:
        self._grids[stage] = (int(size[0]), int(size[1]))


def find_layout(backbone: nn.Module) -> Layout:
    """Builds the layout of a backbone.

    Layouts registered later are asked first, so yours can replace one of ours.

    Raises:
        ValueError: No registered layout supports the backbone.
    """
    layouts = _registered_layouts(LAYOUTS)
    for layout in reversed(layouts):
        if layout.supports(backbone):
            return layout(backbone)
    name = type(backbone).__name__
    if isinstance(backbone, TIMMBackbone):
        name = f'TIMMBackbone({type(backbone.timm_model).__name__})'
    raise ValueError(
        f'no layout supports the backbone {name}; there are layouts for: '
        f'{", ".join(layout.__name__.removesuffix("Layout") for layout in layouts)}. To add one, '
        'subclass gleam_mm.petl.Layout and register it with @LAYOUTS.register_module()'
    )


def _registered_layouts(registry: Registry) -> list[type[Layout]]:
    registry.import_from_location()
    return list(registry.module_dict.values())


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
    outer_roles = {'patch_embed': ('patch_embed',), 'norm': ('ln1',)}

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        # BEiT's attention multiplies by qkv.weight itself, so that hooks on qkv would never fire.
        return isinstance(backbone, VisionTransformer) and all(
            isinstance(layer.attn, MultiheadAttention) for layer in backbone.layers
        )

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


@LAYOUTS.register_module()
class SwinLayout(Layout):
    """MMPretrain's SwinTransformer. Attention sites see windows: there the window is the grid."""

    block_roles = {
        'norm': ('norm1', 'norm2'),
        'attn': ('attn.w_msa',),
        'qkv': ('attn.w_msa.qkv',),
        'proj': ('attn.w_msa.proj',),
        'ffn': ('ffn',),
        'fc1': ('ffn.layers.0.0',),
        'fc2': ('ffn.layers.1',),
    }

    @property
    def outer_roles(self) -> Mapping[str, tuple[str, ...]]:
        norms = tuple(f'norm{stage}' for stage in self.backbone.out_indices)
        return {'patch_embed': ('patch_embed',), 'norm': norms}

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        return isinstance(backbone, SwinTransformer) and all(
            isinstance(block.attn.w_msa, WindowMSA)
            for stage in backbone.stages
            for block in stage.blocks
        )

    def blocks(self) -> Iterator[Block]:
        for stage, sequence in enumerate(self.backbone.stages):
            for index in range(len(sequence.blocks)):
                yield Block(f'stages.{stage}.blocks.{index}', stage, sequence.embed_dims)

    def grid(self, site: Site) -> Grid:
        if site.role in WINDOWED_ROLES:
            window = self.backbone.stages[site.stage].blocks[0].attn.w_msa.window_size
            return Grid(0, *window)
        return super().grid(site)

    def track_grid(self) -> list[RemovableHandle]:
        return [
            sequence.register_forward_pre_hook(partial(self._read_grid, stage))
            for stage, sequence in enumerate(self.backbone.stages)
        ]

    def _read_grid(self, stage: int, module: nn.Module, args: tuple) -> None:
        self._set_grid(stage, args[1])


_TIMM_BLOCK_ROLES = {
    'norm': ('norm1', 'norm2'),
    'attn': ('attn',),
    'qkv': ('attn.qkv',),
    'proj': ('attn.proj',),
    'ffn': ('mlp',),
    'fc1': ('mlp.fc1',),
    'fc2': ('mlp.fc2',),
}
_TIMM_OUTER_ROLES = {'patch_embed': ('timm_model.patch_embed',), 'norm': ('timm_model.norm',)}


@LAYOUTS.register_module()
class TIMMViTLayout(Layout):
    """timm's VisionTransformer inside MMPretrain's TIMMBackbone."""

    block_roles = _TIMM_BLOCK_ROLES
    outer_roles = _TIMM_OUTER_ROLES

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        return (
            isinstance(backbone, TIMMBackbone)
            and isinstance(backbone.timm_model, timm_vit.VisionTransformer)
            and all(
                isinstance(getattr(block, 'attn', None), timm_vit.Attention)
                for block in backbone.timm_model.blocks
            )
        )

    @property
    def num_prefix_tokens(self) -> int:
        return self.backbone.timm_model.num_prefix_tokens

    def blocks(self) -> Iterator[Block]:
        for index in range(len(self.backbone.timm_model.blocks)):
            yield Block(f'timm_model.blocks.{index}', 0, self.backbone.timm_model.embed_dim)

    def track_grid(self) -> list[RemovableHandle]:
        # The convolution, not patch_embed: what that returns depends on timm's `dynamic_img_size`.
        return [self.backbone.timm_model.patch_embed.proj.register_forward_hook(self._read_grid)]

    def _read_grid(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._set_grid(0, output.shape[-2:])


@LAYOUTS.register_module()
class TIMMSwinLayout(Layout):
    """timm's SwinTransformer inside MMPretrain's TIMMBackbone. Attention sites see windows."""

    block_roles = _TIMM_BLOCK_ROLES
    outer_roles = _TIMM_OUTER_ROLES

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        return isinstance(backbone, TIMMBackbone) and isinstance(
            backbone.timm_model, timm_swin.SwinTransformer
        )

    def blocks(self) -> Iterator[Block]:
        for stage, sequence in enumerate(self.backbone.timm_model.layers):
            for index, block in enumerate(sequence.blocks):
                yield Block(f'timm_model.layers.{stage}.blocks.{index}', stage, block.dim)

    def grid(self, site: Site) -> Grid:
        if site.role in WINDOWED_ROLES:
            block = self.backbone.timm_model.layers[site.stage].blocks[0]
            return Grid(0, *block.attn.window_size)
        return super().grid(site)

    def track_grid(self) -> list[RemovableHandle]:
        # A stage downsamples first, so its input has not the size that its blocks see.
        return [
            sequence.downsample.register_forward_hook(partial(self._read_grid, stage))
            for stage, sequence in enumerate(self.backbone.timm_model.layers)
        ]

    def _read_grid(self, stage: int, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._set_grid(stage, output.shape[1:3])
