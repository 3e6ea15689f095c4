"""Where the attention of a backbone goes, layer by layer and over all layers."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gleam_mm.analysis.pictures import Pictures
from gleam_mm.analysis.subjects import AnalysisError, Subject
from gleam_mm.analysis.windows import is_windowed, unwindow
from gleam_mm.petl.layouts import Site, find_layout


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
        layout = find_layout(subject.model.backbone)
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
        self._handles = self.layout.track_grid()
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
        attention = self._attentions[block].module
        self._weights[block] = attention_weights(attention, output, self._masks.pop(block))


def attention_weights(attention: nn.Module, qkv: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights that an attention module of MMPretrain or timm gives to the values.

    Args:
        attention: The module.
        qkv: What its ``qkv`` gave, of shape (B, N, 3 C).
        mask: In Swin the mask of shifted windows, of shape (W, N, N), or None.

    Returns:
        Weights of shape (B, heads, N, N); rows sum to one.
    """
    qkv = qkv.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys = qkv[0], qkv[1]
    if hasattr(attention, 'q_norm'):  # timm
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    scale = getattr(attention, 'scale', queries.shape[-1] ** -0.5)
    scores = queries @ keys.transpose(-2, -1) * scale
    if hasattr(attention, 'relative_position_bias_table'):
        index = attention.relative_position_index
        table = attention.relative_position_bias_table[index.view(-1)]
        scores = scores + table.view(*index.shape[-2:], -1).permute(2, 0, 1)
    if mask is not None:
        scores = scores.unflatten(0, (-1, len(mask))) + mask[:, None]
        scores = scores.flatten(0, 1)
    return scores.softmax(-1)


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
        windowed = is_windowed(probe.blocks[0].module)
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
    prefix, height, width = probe.layout.grid(site)
    mean = weights.mean(1)
    if is_windowed(site.module):
        received = mean.sum(1)[..., None]  # (B W, N, 1)
        grid = unwindow(received, site.module, probe.layout.grid(site), images)
        return grid.view(images, height, width)
    rows = mean[:, 0] if prefix else mean.mean(1)
    return _on_grid(rows, prefix, height, width)


def _rollout_map(probe: AttentionProbe, weights: Sequence[Tensor]) -> Tensor:
    prefix, height, width = probe.layout.grid(probe.blocks[0])
    # Prompts, which stand behind the tokens of the image, are others in every layer.
    tokens = prefix + height * width
    product = rollout([layer[..., :tokens, :tokens] for layer in weights])
    rows = product[:, 0] if prefix else product.mean(1)
    return _on_grid(rows, prefix, height, width)


def _on_grid(rows: Tensor, prefix: int, height: int, width: int) -> Tensor:
    return rows[:, prefix : prefix + height * width].unflatten(1, (height, width))
