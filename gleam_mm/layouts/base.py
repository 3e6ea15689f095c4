"""Layouts: where the sites of a backbone are, and what grid its tokens form."""

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

from mmengine.registry import Registry
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.layouts.attention import Attention
from gleam_mm.layouts.pass_state import OfImages, PassState, the_only
from gleam_mm.layouts.site import (
    ACTIVATIONS,
    LINEAR_ROLES,
    NORMS,
    PART_ROLES,
    ROLES,
    Block,
    Grid,
    Site,
)
from gleam_mm.layouts.wrappers import inside
from gleam_mm.registry import LAYOUTS


class _Tokens(PassState):
    """What is known of the tokens of the current pass."""

    def __init__(self) -> None:
        self.suffix = 0
        self.off_grid: int | None = None


class OwnClassifier(NamedTuple):
    """A classifier of a backbone's own library, which pools and has a Linear as its head.

    Attributes:
        config: Its config, without the number of classes.
        model: The module that it is, as far as the backbone goes.
        head: The path of its Linear.
        neck: The config of the neck that it stands for; empty where the backbone pools by itself.
    """

    config: dict[str, Any]
    model: nn.Module
    head: str
    neck: Mapping[str, Any]


class Layout:
    """What knows one class of backbones: lists its sites and tells the token grid at run time.

    A method asks for *roles* (``qkv``, ``fc1``, ...); the layout of the backbone answers with
    *sites*. A subclass names the modules of a block in :attr:`block_roles`, lists the blocks, and
    keeps the grid up to date with the hooks of :meth:`track_grid`.

    Args:
        backbone: The backbone to describe. It is referred to, never registered as a submodule.
    """

    block_roles: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Role -> paths relative to a block. Paths that a given block lacks are skipped."""

    attention_class: ClassVar[type[Attention]] = Attention
    """What knows the arithmetic of the sites with the role ``attn``."""

    inner_drop_path: ClassVar[Mapping[str, str]] = {}
    """Role of a sublayer -> its part that drops paths, where that is within the sublayer."""

    windowed: ClassVar[bool] = False
    """Whether attention sees windows instead of the whole grid; then it is a WindowedLayout."""

    first_frozen_stage: ClassVar[int] = 0
    """From which value on the backbone's option ``frozen_stages`` freezes anything."""

    neck: ClassVar[Mapping[str, Any]] = {'type': 'GlobalAveragePooling'}
    """The config of the neck that pools what such a backbone returns, unless it does so itself."""

    no_prompts: ClassVar[str] = ''
    """Why no tokens can be added to those of the backbone, if they cannot."""

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone: Any = backbone  # whose attributes only its layout knows
        self._tokens = _Tokens()
        self._sizes: OfImages[tuple[int, int]] = OfImages()  # of the grid
        self._blocks: dict[int | None, Site] = {}

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

    def entrance(self) -> nn.Module:
        """What images reach first, whichever method of the backbone is called with them."""
        return next(self.all_sites()).module

    def grid_modules(self) -> Sequence[nn.Module]:
        """Modules without which :meth:`track_grid` learns of no images, and not those of sites."""
        return ()

    @classmethod
    def refusal(cls, backbone: nn.Module) -> str | None:
        """Why a backbone is refused that one would take for one of this layout's, or None."""
        return None

    @property
    def no_grid(self) -> str:
        """Why the tokens form no grid, if they do not."""
        return ''

    @property
    def no_blocks(self) -> str:
        """Why whole blocks cannot be adapted, if they cannot."""
        return ''

    @property
    def pre_norm(self) -> bool:
        """Whether norms stand in front of attention and FFN, so that they read the residual."""
        return True

    @property
    def features(self) -> int | None:
        """The width of what the backbone gives for an image when it is pooled, where known."""
        return self.sites(('block',))[-1].width

    @property
    def outer_roles(self) -> Mapping[str, tuple[str, ...]]:
        """Role -> paths relative to the backbone, for modules outside of the blocks."""
        return {}

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the grid: class and distillation tokens, registers."""
        return 0

    def own_classifier(self, config: Mapping[str, Any]) -> OwnClassifier | None:
        """What the backbone's library makes of it, :attr:`neck` and a Linear; None by default.

        Args:
            config: The config of the backbone.
        """
        return None

    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image for the backbone; 224 where it has no size."""
        embedding = next((m for m in self.backbone.modules() if isinstance(m, nn.Conv2d)), None)
        channels = 3 if embedding is None else embedding.in_channels
        for module in self.backbone.modules():
            for name in ('img_size', 'init_input_size', 'image_size'):
                size = getattr(module, name, None)
                if isinstance(size, int | tuple | list):
                    height, width = (size, size) if isinstance(size, int) else size
                    return channels, height, width
        return channels, 224, 224

    def forget(self) -> None:
        """Forgets the grids of the passes so far."""
        self._sizes = OfImages()

    def begin(self) -> None:
        """Forgets what a pass that broke off has left. The backbone is called."""
        self._tokens.suffix, self._tokens.off_grid = 0, None

    def as_tokens(self, site: Site, x: Any) -> Any:
        """What a site's module reads or gives, as methods see it: tokens (B, N, C).

        Args:
            site: The site.
            x: What it is called with, or returns.
        """
        return x

    def from_tokens(self, site: Site, tokens: Tensor, like: Any) -> Any:
        """Undoes :meth:`as_tokens`.

        Args:
            site: The site.
            tokens: Tokens (B, N, C).
            like: What the module is called with, or returns, without the method.

        Raises:
            RuntimeError: There are other tokens than there were.
        """
        return tokens

    def grid(self, site: Site) -> Grid:
        """The grid of the tokens that reach ``site`` in the current forward pass.

        Raises:
            RuntimeError: No forward pass has told the size yet; or a part of a pass is computed
                again, by gradient checkpointing, and passes with other grids came in between.
        """
        tokens = self._tokens
        if tokens.off_grid is not None:
            return Grid(tokens.off_grid, 0, 0)
        sizes = self._sizes.possible(site.stage)
        if not sizes:
            raise RuntimeError(
                f'the token grid at {site.name!r} is not known yet: call the backbone itself, not '
                'a part of it, after attaching the method'
            )
        return the_only([self._grid(site, *size, tokens.suffix) for size in sizes])

    def extend(self, tokens: int) -> None:
        """Tells that ``tokens`` more stand behind the grid from here on; fewer, where negative."""
        self._tokens.suffix += tokens

    @contextmanager
    def off_grid(self, tokens: int) -> Iterator[None]:
        """Within it, modules are called with ``tokens`` that are no part of any grid."""
        self._tokens.off_grid = tokens
        yield
        self._tokens.off_grid = None

    @property
    def on_grid(self) -> bool:
        """Whether modules are called with tokens of the grid, and not within :meth:`off_grid`."""
        return self._tokens.off_grid is None

    def attention(self, site: Site) -> Attention:
        """The arithmetic of the attention at a site with the role ``attn``."""
        return self.attention_class(site.module)

    def drop_path(self, site: Site, bypass: Tensor) -> Tensor:
        """What the block's drop path leaves of a bypass of the sublayer ``site``.

        Where it stands behind the sublayer, as in timm, it meets the bypass there, and this is
        nothing but ``bypass``. MMPretrain has it within the sublayer, in front of what is added to
        its output; there it is applied here, drawn for the bypass alone.

        Args:
            site: A site with the role ``attn`` or ``ffn``.
            bypass: (B, N, d) what is going to be added to its output.
        """
        name = self.inner_drop_path.get(site.role)
        return bypass if name is None else getattr(site.module, name)(bypass)

    def all_sites(self) -> Iterator[Site]:
        """Every site of the backbone: of the blocks from input to output, amid those outside."""
        last = None
        for index, block in enumerate(self.blocks()):
            if index == 0:
                yield from self._outer_sites(('patch_embed',), block)
            yield self._site(block.path, 'block', index, block)
            for role, paths in self.block_roles.items():
                for path in paths:
                    if self._has(name := f'{block.path}.{path}', role):
                        yield self._site(name, role, index, block)
            last = block
        if last is not None:
            yield from self._outer_sites(('norm',), last)

    def sites(self, roles: Iterable[str], blocks: Sequence[int] | None = None) -> list[Site]:
        """The sites of the given roles, from input to output.

        Args:
            roles: Some of :data:`ROLES`; or of :data:`PART_ROLES`, where ``qkv`` is not among them;
                or names of sites, in which a ``*`` stands for anything, such as
                ``'blocks.11.attn.qkv'``, ``'*.mlp.fc1'``, or ``'blocks.0.attn.qkv.v'`` for the
                values of a fused ``qkv``.
            blocks: Indices of transformer blocks, from the end where negative. With them, sites of
                other blocks and outside of blocks are left out.

        Raises:
            ValueError: A role is unknown, the backbone has no site for it, or has it as a part of
                another one alone; or it has no such block.
        """
        wanted = tuple(roles)
        every = [one for site in self.all_sites() for one in (site, *map(site.part, site.parts))]
        sites: list[Site] = []
        for site in every:
            if any(_is_meant(site, role) for role in wanted) and not _within(site, sites):
                sites.append(site)
        for role in wanted:
            meant = [site for site in every if _is_meant(site, role)]
            if not meant:
                raise ValueError(self._lacking(role, every))
            if not any(site in sites for site in meant):
                raise ValueError(
                    f'sites={list(wanted)}: {role!r} is a part of what others of them name as a '
                    'whole; leave out one or the other'
                )
        if blocks is None:
            return sites
        number = sum(site.role == 'block' for site in every)
        for index in blocks:
            if not -number <= index < number:
                raise ValueError(
                    f'blocks={list(blocks)}: {type(self.backbone).__name__} has {number} blocks, '
                    f'0 to {number - 1}; {index} is none of them'
                )
        chosen = {index % number for index in blocks}
        return [site for site in sites if site.block in chosen]

    def _lacking(self, role: str, sites: Sequence[Site]) -> str:
        """What to say of a role or a pattern that no site is meant by."""
        name = type(self.backbone).__name__
        if _is_pattern(role):
            example = next(site.name for site in sites if site.role in LINEAR_ROLES)
            return f'{name} has no site with the name {role!r}; its names are like {example!r}'
        known = (*ROLES, *PART_ROLES)
        there = {site.role for site in sites}
        return (
            f'{name} has no site with the role {role!r}; '
            f'its roles are: {", ".join(role for role in known if role in there)}'
        )

    def parameters(self, blocks: Sequence[int] | None = None) -> Iterator[tuple[str, nn.Parameter]]:
        """The backbone's parameters by name, all of them or those of some blocks.

        Those that its option ``frozen_stages`` freezes are left out.
        """
        frozen = self._frozen()
        if blocks is None:
            named = self.backbone.named_parameters()
        else:
            sites = self.sites(('block',), blocks)
            named = itertools.chain(*(s.module.named_parameters(s.name) for s in sites))
        for name, parameter in named:
            if parameter not in frozen:
                yield name, parameter

    def _frozen(self) -> set[nn.Parameter]:
        """What MMPretrain's option ``frozen_stages`` freezes, by the backbone's own rule."""
        stages = getattr(self.backbone, 'frozen_stages', None)  # DeiT3 has the rule alone
        if stages is None or stages < self.first_frozen_stage:
            return set()
        modes = {module: module.training for module in self.backbone.modules()}
        before = {p: p.requires_grad for p in self.backbone.parameters()}
        self.backbone.requires_grad_(True)
        self.backbone._freeze_stages()
        frozen = {p for p in before if not p.requires_grad}
        for parameter, learns in before.items():
            parameter.requires_grad_(learns)
        for module, training in modes.items():
            module.training = training
        return frozen

    def recomputable(self) -> Iterator[nn.Module]:
        """The norms and activations of the blocks, whose outputs can be computed again.

        They depend on their input and parameters alone, without chance, and autograd keeps their
        input.
        """
        for block in self.blocks():
            for module in self.backbone.get_submodule(block.path).modules():
                foreign = type(module).__module__ == 'transformers.activations'
                if isinstance(module, (*NORMS, *ACTIVATIONS)) or foreign:
                    yield module

    def block_of(self, site: Site) -> Site:
        """The transformer block that a site is in."""
        if not self._blocks:
            self._blocks = {block.block: block for block in self.sites(('block',))}
        return self._blocks[site.block]

    def _grid(self, site: Site, height: int, width: int, suffix: int) -> Grid:
        """The grid at a site, given that of the stage."""
        return Grid(self.num_prefix_tokens, height, width, suffix)

    def _outer_sites(self, roles: tuple[str, ...], block: Block) -> Iterator[Site]:
        for role in roles:
            for name in self.outer_roles.get(role, ()):
                if self._has(name, role):
                    yield self._site(name, role, None, block)

    def _site(self, name: str, role: str, index: int | None, block: Block) -> Site:
        module = self._module(name)
        parts = self._parts(name, module) if role == 'qkv' else ()
        return Site(name, role, module, index, block.stage, block.width, parts)

    def _module(self, name: str) -> nn.Module:
        """The module of the site of a name."""
        return self.backbone.get_submodule(name)

    def _parts(self, name: str, module: nn.Module) -> tuple[str, ...]:
        """Which of queries, keys and values a Linear with the role ``qkv`` writes, in order."""
        return PART_ROLES

    def _has(self, name: str, role: str = '') -> bool:
        """Whether there is such a module; an Identity is no norm."""
        try:
            module = self.backbone.get_submodule(name)
        except AttributeError:
            return False
        return not (role == 'norm' and isinstance(module, nn.Identity))

    def _set_grid(self, stage: int, size: Sequence[int]) -> None:
        self._sizes.begin((int(size[0]), int(size[1])), stage)


def masking(backbone: nn.Module) -> str | None:
    """Why a backbone of MMPretrain is refused that is for masked pretraining, or None."""
    if not hasattr(backbone, 'mask_ratio'):
        return None
    return (
        f'{type(backbone).__name__} masks patches at random, as for pretraining: build the class '
        'that it derives from, with the same weights'
    )


def _is_pattern(role: str) -> bool:
    return '.' in role or '*' in role


def _is_meant(site: Site, role: str) -> bool:
    """Whether a site is meant by a role, or by a pattern of names."""
    return fnmatchcase(site.name, role) if _is_pattern(role) else site.role == role


def _within(site: Site, sites: Sequence[Site]) -> bool:
    """Whether a site is a part of one that is there already."""
    return site.role in PART_ROLES and any(other.name == site.path for other in sites)


def find_layout(backbone: nn.Module) -> Layout:
    """Builds the layout of a backbone.

    Layouts registered later are asked first, so yours can replace one of ours.

    Raises:
        ValueError: No registered layout supports the backbone, or it is wrapped.
    """
    layouts = _registered_layouts(LAYOUTS)
    for layout in reversed(layouts):
        if layout.supports(backbone):
            return layout(backbone)
    path, model = inside(backbone)
    if path:
        raise ValueError(
            f'this {type(backbone).__name__} wraps its .{path}, a {type(model).__name__}: give '
            'that one, and wrap it afterwards'
        )
    for layout in layouts:
        if reason := layout.refusal(backbone):
            raise ValueError(f'no layout supports this backbone: {reason}')
    name = type(backbone).__name__
    if (inner := getattr(backbone, 'timm_model', None)) is not None:
        name = f'{name}({type(inner).__name__})'
    raise ValueError(
        f'no layout supports the backbone {name}; there are layouts for: '
        f'{", ".join(layout.__name__.removesuffix("Layout") for layout in layouts)}. To add one, '
        'subclass gleam_mm.layouts.Layout and register it with @LAYOUTS.register_module()'
    )


def _registered_layouts(registry: Registry) -> list[type[Layout]]:
    registry.import_from_location()
    return list(registry.module_dict.values())
