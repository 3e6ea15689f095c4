"""The layout of every family that has a row in :mod:`gleam_mm.layouts.families`."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache, partial
from typing import Any, NoReturn, cast

from torch import Tensor, nn

from gleam_mm.layouts.attention import Attention
from gleam_mm.layouts.base import Layout, OwnClassifier, masking
from gleam_mm.layouts.called import InProjection, attended_by_steps, called_by_name
from gleam_mm.layouts.families import (
    PARTS_OF_NAME,
    POSITIONS,
    ROLE_OF_NAME,
    Family,
    family_of,
)
from gleam_mm.layouts.pass_state import OfImages, PassState, the_only
from gleam_mm.layouts.site import NORMS, Block, Grid, Site
from gleam_mm.layouts.timm_backbone import PooledTIMMBackbone, dropping, inner_model, own_classifier
from gleam_mm.layouts.wrapped import LibraryBackbone
from gleam_mm.registry import LAYOUTS

_IN_PROJ = 'in_proj'
"""What the first projection of an ``nn.MultiheadAttention`` is called, as its parameters are."""

_SUBLAYERS = {'attn': ('qkv', 'proj'), 'ffn': ('fc1', 'fc2')}
"""Role of a module -> those of the Linears in it."""


class _Seen(PassState):
    """What is known of the current pass."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}  # that reached each site, without channels


@LAYOUTS.register_module()
class FamilyLayout(Layout):
    """A backbone whose sites follow from the names of its modules.

    Roles come from the names of Linears, other sites from where these are; what names do not tell
    is in the :class:`~gleam_mm.layouts.families.Family`.

    Tokens reach sites in many shapes: as sequences, as maps, as windows of maps. Methods see
    sequences (B, N, C) everywhere. A map tells its grid by itself. That of a sequence follows from
    the image: of all grids with so many tokens, it is the one that a stride makes of the image's
    height and width. Where it is none, the sequence is a window.
    """

    no_prompts = 'its attention counts on the tokens that it knows'

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.model, self.root = inner_model(backbone)
        self.family = cast(Family, family_of(self.model))
        self._linears = _find_linears(self.model, self.family)
        self._projections = {
            f'{self.root}{path}.{name}': InProjection(self.model.get_submodule(f'{path}.{parent}'))
            for path, linears in self._linears.items()
            if (name := f'{(parent := self.family.attention)}.{_IN_PROJ}') in linears
        }
        self._images: OfImages[tuple[int, int, int]] = OfImages()  # number, height and width
        self._seen = _Seen()
        self._last = _Seen()  # of any thread, for a block that is computed again for its gradient

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        return family_of(inner_model(backbone)[0]) is not None and cls.refusal(backbone) is None

    @classmethod
    def refusal(cls, backbone: nn.Module) -> str | None:
        model, _ = inner_model(backbone)
        family = family_of(model)
        if family is None:
            return None
        if reason := masking(model):
            return reason
        if _find_linears(model, family):
            return None
        return (
            f'{type(model).__name__} as it is built here has no Linear in '
            f'{" or ".join(family.blocks + family.late)}: it computes by convolutions'
        )

    @property
    def features(self) -> int | None:
        wide = getattr(self.model, 'num_features', None)
        if isinstance(self.backbone, PooledTIMMBackbone):
            return getattr(self.model, 'head_hidden_size', None) or wide
        if isinstance(self.backbone, LibraryBackbone):
            return self.backbone.num_features
        return wide if self.root else None

    @property
    def no_grid(self) -> str:
        return self.family.no_grid or dropping(self.model)

    @property
    def no_blocks(self) -> str:
        return self.family.no_blocks

    @property
    def pre_norm(self) -> bool:
        return not self.family.post_norm

    @property
    def num_prefix_tokens(self) -> int:
        if self.family.prefix is not None:
            config = getattr(self.model, 'config', None)  # of transformers
            return self.family.prefix + getattr(config, 'num_register_tokens', 0)
        extra = getattr(self.model, 'num_extra_tokens', 0)  # as MMPretrain calls them
        return getattr(self.model, 'num_prefix_tokens', extra)

    @property
    def outer_roles(self) -> Mapping[str, tuple[str, ...]]:
        norms = (f'{self.root}norm', f'{self.root}fc_norm')
        return {'patch_embed': (f'{self.root}patch_embed',), 'norm': norms}

    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = super().image_shape()
        if any(hasattr(module, 'img_size') for module in self.model.modules()):
            return channels, height, width
        if (tokens := getattr(self.model, 'tokens_spatial_shape', None)) is not None:  # Hiera
            height, width = (a * b for a, b in zip(tokens, self.model.patch_stride, strict=True))
            return channels, height, width
        pretrained = getattr(self.model, 'pretrained_cfg', None) or {}
        _, height, width = pretrained.get('input_size', (channels, height, width))
        return channels, height, width

    def own_classifier(self, config: Mapping[str, Any]) -> OwnClassifier | None:
        if not isinstance(self.backbone, PooledTIMMBackbone):
            return None
        head = self.model.pretrained_cfg['classifier']
        return own_classifier(self.backbone, config, head, {}) if isinstance(head, str) else None

    def attention(self, site: Site) -> Attention:
        raise ValueError(
            f'the attention of {type(self.model).__name__} at {site.name!r} is not known step by '
            'step; it is for ViT and Swin'
        )

    def blocks(self) -> Iterator[Block]:
        widths: list[int] = []
        for path, linears in self._linears.items():
            width = _width(self.model.get_submodule(path), linears)
            if width not in widths:
                widths.append(width)
            yield Block(f'{self.root}{path}', widths.index(width), width)

    def all_sites(self) -> Iterator[Site]:
        blocks = list(self.blocks())
        yield from self._outer_sites(('patch_embed',), blocks[0])
        for index, block in enumerate(blocks):
            yield self._site(block.path, 'block', index, block)
            for name, role in self._roles_in(block):
                yield self._site(f'{block.path}.{name}', role, index, block)
        for site in self._outer_sites(('norm',), blocks[-1]):
            if _is_norm(site.module):
                yield site

    def _roles_in(self, block: Block) -> Iterator[tuple[str, str]]:
        """The sites in a block, in the order of its modules."""
        linears = self._linears[block.path.removeprefix(self.root)]
        sublayers = {
            _parent(name): role
            for role, inner in _SUBLAYERS.items()
            for name, own in linears.items()
            if own in inner and _parent(name)
        }
        for name, module in self.backbone.get_submodule(block.path).named_modules():
            if name in linears:
                yield name, linears[name]
            elif name in sublayers:
                yield name, sublayers[name]
                if name == self.family.attention:
                    yield f'{name}.{_IN_PROJ}', 'qkv'
            elif '.' not in name and _is_norm(module):
                yield name, 'norm'

    def _parts(self, name: str, module: Any) -> tuple[str, ...]:
        parts = PARTS_OF_NAME.get(name.rpartition('.')[2], ())
        if len(parts) < 2:
            return parts
        # One that is told apart by its name alone, such as a qkv without queries, is not.
        attention = self.backbone.get_submodule(_parent(name))
        project = getattr(attention, 'proj', None) or getattr(attention, 'out_proj', None)
        each = getattr(project, 'in_features', 0)
        return parts if self.family.apart and module.out_features == each * len(parts) else ()

    def _module(self, name: str) -> nn.Module:
        return self._projections.get(name) or super()._module(name)

    def entrance(self) -> nn.Module:
        first = next(self.all_sites())
        if first.role == 'patch_embed':
            return first.module
        convolution = next((m for m in self.model.modules() if isinstance(m, nn.Conv2d)), None)
        if convolution is not None:
            return convolution
        names = (n for n, m in self.model.named_modules() if isinstance(m, nn.Linear))
        return self.model.get_submodule(_parent(next(names)))

    def grid_modules(self) -> list[nn.Module]:
        return [self.entrance()]

    def track_grid(self) -> list[Any]:
        handles: list[Any] = [
            self.backbone.register_forward_pre_hook(self._read_images, with_kwargs=True),
            self.entrance().register_forward_pre_hook(self._read_part),
        ]
        for site in self.sites(('block',)):
            handles.append(site.module.register_forward_pre_hook(partial(self._read_block, site)))
            children: dict[str, list[str]] = {}
            for path in self.family.by_weight:
                if self._has(name := f'{site.name}.{path}'):
                    children.setdefault(_parent(name), []).append(path.rpartition('.')[2])
            for parent, names in children.items():
                handles.append(called_by_name(self.backbone.get_submodule(parent), names))
        for name, projection in self._projections.items():
            attention = self.backbone.get_submodule(_parent(name))
            handles.append(attended_by_steps(attention, projection))
        return handles

    def forget(self) -> None:
        super().forget()
        self._images = OfImages()
        self._last.shapes.clear()
        self._seen.shapes.clear()

    def as_tokens(self, site: Site, x: Any) -> Any:
        if isinstance(x, tuple | list):
            x = x[0]
        if site.role == 'patch_embed':
            return x
        channels = 1 if self._is_image(site, x) else x.dim() - 1
        shape = tuple(size for axis, size in enumerate(x.shape) if axis != channels)
        self._seen.shapes[site.name] = self._last.shapes[site.name] = shape
        if channels == 1 and x.dim() == 4:
            return x.flatten(2).transpose(1, 2)
        if x.dim() == 2:
            return x.unsqueeze(1)
        if x.dim() == 3:
            return x
        return x.flatten(0, -4).flatten(1, -2)

    def from_tokens(self, site: Site, tokens: Tensor, like: Any) -> Any:
        if isinstance(like, tuple | list):
            return type(like)((self.from_tokens(site, tokens, like[0]), *like[1:]))
        if site.role == 'patch_embed' or tokens.shape == like.shape:
            return tokens
        if tokens.numel() != like.numel():
            raise RuntimeError(
                f'{site.name!r} (role {site.role!r}) gives {tuple(like.shape)}, and the method '
                f'{tuple(tokens.shape)}: it does not fit where a module changes the tokens'
            )
        if self._is_image(site, like):
            return tokens.transpose(1, 2).reshape(like.shape)
        return tokens.reshape(like.shape)

    def grid(self, site: Site) -> Grid:
        if self._tokens.off_grid is not None:
            return super().grid(site)
        if reason := self.family.no_grid:
            raise ValueError(f'the tokens at {site.name!r} form no grid: {reason}')
        images = self._images.possible()
        shape = self._seen.shapes.get(site.name) or self._last.shapes.get(site.name)
        if not images or shape is None:
            self._unknown(site)
        if len(shape) == 1:  # the class tokens alone
            return Grid(1, 0, 0)
        if len(shape) > 2:
            return Grid(0, *shape[-2:])
        sequences, tokens = shape
        found = [self._sequence(site, sequences, tokens, *each) for each in images]
        grids = [grid for grid in found if grid]
        if not grids:
            _, height, width = images[0]
            raise RuntimeError(
                f'{tokens} tokens at {site.name!r} are no grid that a stride makes of an image '
                f'of {height} x {width}'
            )
        return the_only(grids)

    def _sequence(
        self, site: Site, sequences: int, tokens: int, images: int, height: int, width: int
    ) -> Grid | None:
        """The grid of sequences of so many tokens, if they are one."""
        if any(f'.{name}.' in f'{site.path}.' for name in self.family.squares):
            height = width = 1
        elif sequences != images and math.prod(window := self._window(site)) == tokens:
            return Grid(0, *window)
        elif sequences == images:
            prefix = self.num_prefix_tokens if self._has_prefix(site) else 0
            if prefix and tokens <= prefix:
                return Grid(tokens, 0, 0)
            if size := _grid(tokens - prefix, height, width):
                return Grid(prefix, *size)
        size = _grid(tokens, height, width)
        return Grid(0, *size) if size else None

    def _window(self, site: Site) -> tuple[int, ...]:
        """The size of the windows that a site sees, or nothing."""
        path = site.path
        while path.startswith(self._path_of_block(site)):
            size = getattr(self.backbone.get_submodule(path), 'window_size', 0)
            if size:
                return (size, size) if isinstance(size, int) else tuple(size)
            path = path.rpartition('.')[0]
        return ()

    def _has_prefix(self, site: Site) -> bool:
        late = not self.family.late
        path = self._path_of_block(site).removeprefix(self.root)
        return late or any(_matches(pattern, path) for pattern in self.family.late)

    def _path_of_block(self, site: Site) -> str:
        return self.block_of(site).name

    def _is_image(self, site: Site, x: Tensor) -> bool:
        return self.family.channels_first and site.role == 'block' and x.dim() == 4

    def _read_images(self, module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        self._begin_with(_images(*args, *kwargs.values()))

    def _read_part(self, module: nn.Module, args: tuple) -> None:
        # Of images the same is told that the backbone's call told, where it was called.
        if images := _images(*args):
            self._begin_with(images)

    def _begin_with(self, images: tuple[int, int, int] | None) -> None:
        self._images.begin(images)
        self._seen.shapes.clear()

    def _read_block(self, site: Site, module: nn.Module, args: tuple) -> None:
        if args:
            self.as_tokens(site, args[0])

    def _unknown(self, site: Site) -> NoReturn:
        raise RuntimeError(
            f'the token grid at {site.name!r} is not known yet: call the backbone itself, not '
            'a part of it, after attaching the method'
        )


def _images(*given: Any) -> tuple[int, int, int] | None:
    """Number, height and width of the images that a module is called with, if it is."""
    found = (x for x in given if isinstance(x, Tensor) and x.dim() == 4)
    return next(((x.shape[0], x.shape[2], x.shape[3]) for x in found), None)


def _find_linears(model: nn.Module, family: Family) -> dict[str, dict[str, str]]:
    """Path of each block that has any -> path of each Linear in it -> its role."""
    found: dict[str, dict[str, str]] = {}
    patterns = (*family.blocks, *family.late)
    for path, block in model.named_modules():
        if not any(_matches(pattern, path) for pattern in patterns):
            continue
        roles = {
            name: role
            for name, module in block.named_modules()
            if isinstance(module, nn.Linear) and (role := _role(name, family))
        }
        if family.attention and isinstance(
            block.get_submodule(family.attention), nn.MultiheadAttention
        ):
            roles[f'{family.attention}.{_IN_PROJ}'] = 'qkv'
        if roles:
            found[path] = roles
    return found


def _role(name: str, family: Family) -> str | None:
    """The role of a Linear by its path in a block."""
    parts = name.split('.')
    if set(parts) & set(POSITIONS):
        return None
    while len(parts) > 1 and parts[-1] in ('linear', 'ln'):  # of a Linear with a norm behind it
        parts.pop()
    path = '.'.join(parts)
    for own, role in family.names.items():
        if f'.{path}'.endswith(f'.{own}'):
            return role
    return ROLE_OF_NAME.get(parts[-1])


def _width(block: nn.Module, linears: Mapping[str, str]) -> int:
    """The width of what a block writes."""
    writes = [name for name, role in linears.items() if role in ('fc2', 'proj')]
    return cast(nn.Linear, block.get_submodule(writes[-1])).out_features if writes else 0


@cache
def _matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r'\*', r'[^.]+'), path) is not None


def _is_norm(module: nn.Module | None) -> bool:
    """Whether a module is a norm of tokens whose channels come last, with weights."""
    own = isinstance(module, NORMS) and module.weight is not None
    return own and not type(module).__name__.endswith('2d')


def _parent(name: str) -> str:
    return name.rpartition('.')[0]


@lru_cache(maxsize=1024)
def _grid(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """The grid of so many tokens that a stride makes of an image, however it rounds."""
    if tokens < 1:
        return None
    stride = math.sqrt(height * width / tokens)
    errors: dict[tuple[int, int], float] = {}
    for rows in range(1, tokens + 1):
        if tokens % rows == 0:
            size = rows, tokens // rows
            errors[size] = max(abs(size[0] - height / stride), abs(size[1] - width / stride))
    best = sorted(errors, key=errors.__getitem__)[:2]
    tied = len(best) > 1 and math.isclose(errors[best[0]], errors[best[1]])
    return None if tied or errors[best[0]] >= 1 else best[0]
