"""The proof that sites are where a layout says: one small pass of the backbone, without data."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gleam_mm.layouts import Layout, Site

_MOST_NAMES = 4
_OF_MODULES = vars(nn.Module()).keys()  # PyTorch's own attributes
INPUT, OUTPUT = 'input', 'output'
_FAR = 0.95  # tokens between where a patch is and where its change is seen


_Shapes = dict[tuple[str, str], tuple[int, int]]  # site and INPUT or OUTPUT -> tokens, width


class _Reached(Exception):
    """The first block is reached; the rest of the pass is not needed."""


Sum = Sequence[tuple[Site, str]]
"""Sites with :data:`INPUT` or :data:`OUTPUT`: what their modules read or give is added up."""


def probe(
    layout: Layout,
    sites: Iterable[Site],
    on_grid: Collection[str] = (),
    sums: Iterable[tuple[str, Sum]] = (),
) -> None:
    """Proves that a backbone computes through sites, and that its tokens form the layout's grid.

    A module that is never called, or whose output goes nowhere, would take a method and train it in
    silence: BEiT of timm multiplies by ``qkv.weight`` itself, and MMPretrain's DeiT3 has a norm
    that it never calls. One random image goes through the backbone, in evaluation mode and with a
    graph; then one patch of it is changed, and has to be the token that the grid says.

    The backbone's gradients, modes, buffers and caches are left as they are, and so is the state of
    random numbers. A backbone on the meta device computes nothing, and is let pass.

    Args:
        layout: The layout of the backbone, whose hooks follow the grid.
        sites: The sites to prove.
        on_grid: Names of those where the method reads the grid of the tokens.
        sums: What a method adds up token by token, behind the method's title; among these sites.

    Warns:
        UserWarning: The backbone cannot be tried, as where its device has no kernel for it.

    Raises:
        RuntimeError: The backbone does not compute through some of them, its tokens form another
            grid, or what is added up has not as many tokens, or is not as wide.
    """
    backbone, sites, sums = layout.backbone, list(sites), list(sums)
    added = {site.name for _, parts in sums for site, _ in parts}
    like = next((p for p in backbone.parameters() if p.is_floating_point()), None)
    if like is None or like.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    size = layout.image_shape()
    image = torch.randn(1, *size, generator=generator).to(like.device, like.dtype)
    with ExitStack() as stack:
        stack.callback(layout.forget)
        stack.enter_context(_left_as_it_is(backbone, like.device))
        try:
            bypassed, off_grid, shapes = _bypassed(layout, sites, image, on_grid, added)
        except Exception as error:  # of the backbone's own, or of a kernel without a gradient
            warnings.warn(
                f'{_title(backbone)} could not be tried on an image of shape {tuple(image.shape)}, '
                f'so that its sites are not proved: {error}',
                stacklevel=4,
            )
            return
        if bypassed:
            raise RuntimeError(_refusal(backbone, bypassed))
        for title, parts in sums:
            _require_alike(title, parts, shapes, _title(backbone))
        if off_grid:
            raise RuntimeError(f'{_title(backbone)}: {off_grid[0]}')
        if not (layout.no_grid or layout.no_blocks):
            _require_grid(layout, image, generator)


def _outputs(
    layout: Layout,
    sites: list[Site],
    image: Tensor,
    on_grid: Collection[str],
    added: Collection[str],
) -> tuple[dict[str, Tensor], list[str], _Shapes]:
    """What the module of each site gave, by name, and under '' what the backbone did.

    Also what is wrong with the grids of those whose grid is read, and how many tokens of which
    width those read and gave that are added up.
    """
    caught: dict[str, Tensor] = {}
    wrong: list[str] = []
    shapes: _Shapes = {}

    def catch(site: Site) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            if (tensor := next(_tensors(output), None)) is not None:
                caught[site.name] = tensor
            if site.name in added:
                for word, x in ((INPUT, args[0]), (OUTPUT, output)):
                    shape = layout.as_tokens(site, x).flatten(1, -2).shape
                    shapes[site.name, word] = shape[1], shape[2]
            if site.name in on_grid and (reason := _misfit(layout, site, args[0])):
                wrong.append(reason)

        return hook

    with ExitStack() as stack:
        for site in sites:
            handle = site.module.register_forward_hook(catch(site))
            stack.callback(handle.remove)
        output = layout.backbone(image.clone().requires_grad_(True))
    # The sum of what a LayerNorm gives is constant: weights that differ.
    weighed = [
        tensor.float().flatten() @ torch.linspace(-1, 2, tensor.numel(), device=tensor.device)
        for tensor in _tensors(output)
    ]
    caught[''] = torch.stack(weighed).sum()
    return caught, wrong, shapes


def _misfit(layout: Layout, site: Site, x: Any) -> str:
    """Why the grid that is told at a site is not that of its tokens, or nothing."""
    tokens = layout.as_tokens(site, x).flatten(1, -2).shape[1]
    try:
        grid = layout.grid(site)
    except (RuntimeError, ValueError) as error:
        return str(error)
    if grid.tokens == tokens:
        return ''
    return (
        f'{tokens} tokens at {site.name!r} are not the {grid.height} x {grid.width} and '
        f'{grid.prefix} others that {type(layout).__name__} says'
    )


def _bypassed(
    layout: Layout,
    sites: list[Site],
    image: Tensor,
    on_grid: Collection[str],
    added: Collection[str],
) -> tuple[list[Site], list[str], _Shapes]:
    """The sites whose module is not called, or gives what nothing is made of; grids; shapes."""
    outputs, wrong, shapes = _outputs(layout, sites, image, on_grid, added)
    # Without a graph there is nothing to say, as within a checkpoint that computes twice.
    traced = [site for site in sites if site.name in outputs and outputs[site.name].requires_grad]
    if traced:
        given = [outputs[site.name] for site in traced]
        gradients = torch.autograd.grad(outputs[''], given, allow_unused=True)
        unused = {site.name for site, grad in zip(traced, gradients, strict=True) if grad is None}
    else:
        unused = set()
    bypassed = [site for site in sites if site.name not in outputs or site.name in unused]
    return bypassed, wrong, shapes


def _require_alike(title: str, parts: Sum, shapes: _Shapes, backbone: str) -> None:
    """Refuses to add up what is not alike."""
    (first, word), *others = parts
    tokens, width = shapes[first.name, word]
    for site, other in others:
        if shapes[site.name, other] != (tokens, width):
            more, wide = shapes[site.name, other]
            raise RuntimeError(
                f'{title} does not fit {backbone}: it adds up token by token the {word} of '
                f'{first.name!r}, {tokens} tokens of width {width}, and the {other} of '
                f'{site.name!r}, {more} of width {wide}. Leave block {site.block} out of `blocks`'
            )


def _refusal(backbone: nn.Module, bypassed: list[Site]) -> str:
    more = len(bypassed) - _MOST_NAMES
    named = ', '.join(site.name for site in bypassed[:_MOST_NAMES])
    named += f' and {more} more' if more > 0 else ''
    roles = ', '.join(sorted({site.role for site in bypassed}))
    return (
        f'{_title(backbone)} does not compute through {named}: a method there would change '
        f'nothing. Leave {roles} out of `sites`'
    )


def _require_grid(layout: Layout, image: Tensor, generator: torch.Generator) -> None:
    """Changes one patch, and looks which tokens of the first block's input change.

    Patches may overlap, and convolutions may stand in front of the block: where the change is on
    the whole has to be less than a token away.
    """
    first = layout.sites(('block',))[0]
    grid = layout.grid(first)
    rows, columns = (side // cells for side, cells in zip(image.shape[-2:], grid[1:3], strict=True))
    place = [min(1, cells - 1) for cells in grid[1:3]]
    top, left = place[0] * rows, place[1] * columns
    changed = image.clone()
    patch = changed[..., top : top + rows, left : left + columns]
    patch += torch.randn(patch.shape, generator=generator).to(patch)
    tokens = [_entering(layout, first, given) for given in (image, changed)]
    # The fourth power: most of it is where the change is, little where it has spread to.
    moved = (tokens[1] - tokens[0]).float().square().sum(-1)[0].square()
    if len(moved) == grid.tokens:
        inside = moved[grid.prefix : grid.prefix + grid.height * grid.width]
        inside = inside.view(grid.height, grid.width) / inside.sum().clamp_min(1e-30)
        found = [
            float(inside.sum(1 - axis) @ torch.arange(cells, device=inside.device).float())
            for axis, cells in enumerate(grid[1:3])
        ]
        if all(abs(a - b) < _FAR for a, b in zip(found, place, strict=True)):
            return
    at = int(moved.argmax())
    raise RuntimeError(
        f'the tokens of {_title(layout.backbone)} are not what {type(layout).__name__} '
        f'says: {len(moved)} tokens, of which a change of the patch in row {place[0]} and column '
        f'{place[1]} changes number {at} most, for a grid of {grid.height} x {grid.width} behind '
        f'{grid.prefix} others'
    )


@torch.no_grad()
def _entering(layout: Layout, block: Site, image: Tensor) -> Tensor:
    caught = []

    def stop(module: nn.Module, args: tuple) -> None:
        caught.append(args[0])
        raise _Reached

    handle = block.module.register_forward_pre_hook(stop)
    try:
        layout.backbone(image)
    except _Reached:
        pass
    finally:
        handle.remove()
    return layout.as_tokens(block, caught[0]).flatten(1, -2)


def _title(backbone: nn.Module) -> str:
    """The class of a backbone, with that of timm's model in it."""
    inner = getattr(backbone, 'timm_model', None)
    name = type(backbone).__name__
    return name if inner is None else f'{name}({type(inner).__name__})'


@contextmanager
def _left_as_it_is(backbone: nn.Module, device: torch.device) -> Iterator[None]:
    modes = [(module, module.training) for module in backbone.modules()]
    kept = [(vars(module), _contents(module)) for module, _ in modes]
    with (
        torch.random.fork_rng([device] if device.type == 'cuda' else []),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        for module, _ in modes:
            module.training = False
        try:
            yield
        finally:
            for attributes, contents in kept:
                _restore(attributes, contents)
            for module, mode in modes:
                module.training = mode


def _contents(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """What a module has beside its parts: name -> value, and a copy of what may be filled.

    LeViT keeps its biases of attention in a dictionary, which must not hold any of this pass.
    """
    return {
        name: (value, value.copy() if isinstance(value, dict | list) else None)
        for name, value in vars(module).items()
        if name == '_buffers' or name not in _OF_MODULES
    }


def _restore(attributes: dict[str, Any], contents: Mapping[str, tuple[Any, Any]]) -> None:
    for name in attributes.keys() - contents.keys() - _OF_MODULES:
        del attributes[name]
    for name, (value, copied) in contents.items():
        attributes[name] = value
        if isinstance(value, dict):
            value.clear()
            value.update(copied)
        elif isinstance(value, list):
            value[:] = copied


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list | Mapping):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)
