"""The proof that sites are where a layout says: one small pass of the backbone, without data."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gleam_mm.layouts import Layout, Site

_MOST_NAMES = 4


class _Reached(Exception):
    """The first block is reached; the rest of the pass is not needed."""


def probe(layout: Layout, sites: Iterable[Site]) -> None:
    """Proves that a backbone computes through sites, and that its tokens form the layout's grid.

    A module that is never called, or whose output goes nowhere, would take a method and train it in
    silence: BEiT of timm multiplies by ``qkv.weight`` itself, and MMPretrain's DeiT3 has a norm
    that it never calls. One random image goes through the backbone, in evaluation mode and with a
    graph; then one patch of it is changed, and has to be the token that the grid says.

    The backbone's gradients, modes and buffers are left as they are, and so is the state of random
    numbers. A backbone on the meta device computes nothing, and is let pass.

    Args:
        layout: The layout of the backbone, whose hooks follow the grid.
        sites: The sites to prove.

    Warns:
        UserWarning: The backbone cannot be tried, as where its device has no kernel for it.

    Raises:
        RuntimeError: The backbone does not compute through some of them, or its tokens form another
            grid.
    """
    backbone, sites = layout.backbone, list(sites)
    like = next((p for p in backbone.parameters() if p.is_floating_point()), None)
    if like is None or like.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    size = layout.image_shape()
    image = torch.randn(1, *size, generator=generator).to(like.device, like.dtype)
    with _left_as_it_is(backbone, like.device):
        try:
            bypassed = _bypassed(backbone, sites, image)
        except Exception as error:  # of the backbone's own, or of a kernel without a gradient
            warnings.warn(
                f'{_title(backbone)} could not be tried on an image of shape {tuple(image.shape)}, '
                f'so that its sites are not proved: {error}',
                stacklevel=4,
            )
            return
        if bypassed:
            raise RuntimeError(_refusal(backbone, bypassed))
        _require_grid(layout, image)
    layout.forget()


def _outputs(backbone: nn.Module, sites: list[Site], image: Tensor) -> dict[str, Tensor]:
    """What the module of each site gave, by name, and under '' what the backbone did."""
    caught: dict[str, Tensor] = {}

    def catch(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            if (tensor := next(_tensors(output), None)) is not None:
                caught[name] = tensor

        return hook

    with ExitStack() as stack:
        for site in sites:
            handle = site.module.register_forward_hook(catch(site.name))
            stack.callback(handle.remove)
        output = backbone(image.clone().requires_grad_(True))
    # The sum of what a LayerNorm gives is constant: weights that differ.
    weighed = [
        tensor.float().flatten() @ torch.linspace(-1, 2, tensor.numel(), device=tensor.device)
        for tensor in _tensors(output)
    ]
    caught[''] = torch.stack(weighed).sum()
    return caught


def _bypassed(backbone: nn.Module, sites: list[Site], image: Tensor) -> list[Site]:
    """The sites whose module is not called, or gives what nothing is made of."""
    outputs = _outputs(backbone, sites, image)
    # Without a graph there is nothing to say, as within a checkpoint that computes twice.
    traced = [site for site in sites if site.name in outputs and outputs[site.name].requires_grad]
    if traced:
        given = [outputs[site.name] for site in traced]
        gradients = torch.autograd.grad(outputs[''], given, allow_unused=True)
        unused = {site.name for site, grad in zip(traced, gradients, strict=True) if grad is None}
    else:
        unused = set()
    return [site for site in sites if site.name not in outputs or site.name in unused]


def _refusal(backbone: nn.Module, bypassed: list[Site]) -> str:
    more = len(bypassed) - _MOST_NAMES
    named = ', '.join(site.name for site in bypassed[:_MOST_NAMES])
    named += f' and {more} more' if more > 0 else ''
    roles = ', '.join(sorted({site.role for site in bypassed}))
    return (
        f'{_title(backbone)} does not compute through {named}: a method there would change '
        f'nothing. Leave {roles} out of `sites`'
    )


def _require_grid(layout: Layout, image: Tensor) -> None:
    """Changes one patch, and looks which token of the first block's input changes most."""
    first = layout.sites(('block',))[0]
    grid = layout.grid(first)
    height, width = (side // cells for side, cells in zip(image.shape[-2:], grid[1:3], strict=True))
    changed = image.clone()
    changed[..., :height, width : 2 * width] += 1
    tokens = [_entering(layout.backbone, first.module, given) for given in (image, changed)]
    expected = grid.prefix + (1 if grid.width > 1 else 0)
    moved = (tokens[1] - tokens[0]).float().abs().sum(-1)[0]
    elsewhere = grid.width > 1 and bool(moved.any()) and int(moved.argmax()) != expected
    if len(moved) != grid.tokens or elsewhere:
        raise RuntimeError(
            f'the tokens of {_title(layout.backbone)} are not what {type(layout).__name__} '
            f'says: {len(moved)} tokens, of which a change of the second patch changes number '
            f'{int(moved.argmax())}, for a grid of {grid.height} x {grid.width} behind '
            f'{grid.prefix} others'
        )


@torch.no_grad()
def _entering(backbone: nn.Module, block: nn.Module, image: Tensor) -> Tensor:
    caught = []

    def stop(module: nn.Module, args: tuple) -> None:
        caught.append(args[0])
        raise _Reached

    handle = block.register_forward_pre_hook(stop)
    try:
        backbone(image)
    except _Reached:
        pass
    finally:
        handle.remove()
    return caught[0].flatten(1, -2)


def _title(backbone: nn.Module) -> str:
    """The class of a backbone, with that of timm's model in it."""
    inner = getattr(backbone, 'timm_model', None)
    name = type(backbone).__name__
    return name if inner is None else f'{name}({type(inner).__name__})'


@contextmanager
def _left_as_it_is(backbone: nn.Module, device: torch.device) -> Iterator[None]:
    modes = [(module, module.training) for module in backbone.modules()]
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
            for module, mode in modes:
                module.training = mode


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)
