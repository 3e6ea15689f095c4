"""Where the attention of a backbone goes, layer by layer and over all layers."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gleam_mm.analysis.pictures import Pictures
from gleam_mm.analysis.subjects import AnalysisError, Subject
from gleam_mm.layouts import Grid, Site


class AttentionProbe:
    """Reads the attention weights of every layer, in a ``with`` block.

    Fused kernels never form them: they are computed again, from the queries and keys that qkv gives
    with the method's update.

    Args:
        subject: The model.

    Raises:
        AnalysisError: The forward method of an attention is replaced, as VPT does in Swin.
    """

    def __init__(self, subject: Subject) -> None:
        layout = subject.model.petl.layout
        self.blocks = layout.sites(('block',))
        self._attentions = {site.block: site for site in layout.sites(('attn',))}
        self._qkvs = {site.block: site for site in layout.sites(('qkv',))}
        self.layout = layout
        self._masks: dict[int, Tensor | None] = {}
        self._weights: dict[int, Tensor] = {}
        self._handles: list = []
        for site in self._attentions.values():
            if 'forward' in vars(site.module):
                raise AnalysisError(
                    f'{subject.name}: {subject.method} computes the attention of {site.name!r} '
                    'itself, so that its weights cannot be read'
                )

    def __enter__(self) -> 'AttentionProbe':
        for block, site in self._attentions.items():
            self._handles.append(
                site.module.register_forward_pre_hook(
                    partial(self._before, block), prepend=True, with_kwargs=True
                )
            )
        for block, site in self._qkvs.items():
            self._handles.append(site.module.register_forward_hook(partial(self._after, block)))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def take(self) -> list[Tensor]:
        """Hands over what the last forward pass has given.

        Returns:
            Attention weights of each layer, of shape (B or B W, heads, queries, keys).
        """
        weights, self._weights = self._weights, {}
        return [weights[site.block] for site in self.blocks]

    def _before(self, block: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._masks[block] = kwargs.get('mask', args[1] if len(args) > 1 else None)

    def _after(self, block: int, module: nn.Module, args: tuple, output: Tensor) -> None:
        attention = self.layout.attention(self._attentions[block])
        self._weights[block] = attention.weights(output, self._masks.pop(block))


def rollout(weights: Sequence[Tensor]) -> Tensor:
    """Attention rollout (Abnar and Zuidema, 2020, section 3).

    Heads are averaged, and half of what a token gets comes from itself by the residual connection.

    Args:
        weights: Attention weights of each layer, of shape (B, heads, N, N), input first.

    Returns:
        How much each token of the input is in each token of the output, of shape (B, N, N); rows
        sum to one.
    """
    product = None
    for layer in weights:
        mixed = layer.mean(1)
        mixed = (mixed + torch.eye(mixed.shape[-1], device=mixed.device)) / 2
        mixed = mixed / mixed.sum(-1, keepdim=True)
        product = mixed if product is None else mixed @ product
    return product


def measure(subject: Subject, pictures: Pictures) -> dict[str, Any]:
    """Attention maps of a few images.

    In a ViT with a class token, a layer's map is the class token's attention, averaged over heads;
    without one, the attention that a token gets, averaged over queries. In Swin, whose windows
    differ from layer to layer, a map is the attention that a token gets in its window, times the
    window's area, so that 1 is even; there is no rollout.

    Args:
        subject: The model.
        pictures: The images.

    Returns:
        What the JSON of ``tools/analyze.py attention`` has.

    Raises:
        AnalysisError: The method hides its attention.
    """
    probe = AttentionProbe(subject)
    with torch.inference_mode(), probe:
        logits = subject.model.head(subject.model.extract_feat(pictures.inputs))
        weights = probe.take()
        layers = [
            _layer_map(site, layer, probe, len(pictures.inputs))
            for site, layer in zip(probe.blocks, weights, strict=True)
        ]
        windowed = probe.layout.windowed
        rolled = None if windowed else _rollout_map(probe, weights)
    return {
        **subject.describe(),
        'map': 'attention received in its window, 1 is even'
        if windowed
        else 'attention of the class token'
        if probe.layout.num_prefix_tokens
        else 'attention received',
        'layers': [site.name for site in probe.blocks],
        'images': [
            {
                **pictures.describe(index, logits),
                'rollout': None if rolled is None else rolled[index].tolist(),
                'maps': [layer[index].tolist() for layer in layers],
            }
            for index in range(len(pictures.inputs))
        ],
    }


def _layer_map(site: Site, weights: Tensor, probe: AttentionProbe, images: int) -> Tensor:
    """One layer's map, of shape (B, height, width)."""
    grid, mean = probe.layout.grid(site), weights.mean(1)
    if probe.layout.windowed:
        received = mean.sum(1)[..., None]  # (B W, N, 1)
        return probe.layout.unwindow(site, received, images).view(images, grid.height, grid.width)
    return _on_grid(mean[:, 0] if grid.prefix else mean.mean(1), grid)


def _rollout_map(probe: AttentionProbe, weights: Sequence[Tensor]) -> Tensor:
    grid = probe.layout.grid(probe.blocks[0])
    # Prompts, which stand behind the tokens of the image, are others in every layer.
    tokens = grid.prefix + grid.height * grid.width
    product = rollout([layer[..., :tokens, :tokens] for layer in weights])
    return _on_grid(product[:, 0] if grid.prefix else product.mean(1), grid)


def _on_grid(rows: Tensor, grid: Grid) -> Tensor:
    """The part of rows (B, N) that is on the grid, of shape (B, height, width)."""
    end = grid.prefix + grid.height * grid.width
    return rows[:, grid.prefix : end].unflatten(1, (grid.height, grid.width))
