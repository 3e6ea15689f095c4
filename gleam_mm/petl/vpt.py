"""VPT: visual prompt tuning."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Natural, NonNegative, Positive, Probability
from gleam_mm.layouts import Layout, PassState, Site, WindowedLayout, join_sequences
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class Prompts(nn.Module):
    """The prompts of one block, or of the whole network: ``tokens`` of the shape (p, d).

    Args:
        number: How many, p.
        width: The token width d.
        bound: They start uniformly distributed between ``-bound`` and ``bound``.
    """

    def __init__(self, number: int, width: int, bound: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(number, width))
        nn.init.uniform_(self.tokens, -bound, bound)


class Gates(nn.Module):
    """How much of what a block makes of its prompts is carried on, block by block, as ``logits``.

    Args:
        number: The number of gates.
        logit: What they start at.
    """

    def __init__(self, number: int, logit: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full((number,), logit))


class _Prompts(PassState):
    """The prompts on their way through the network, and what a Swin's attention made of them."""

    def __init__(self) -> None:
        self.tokens: Tensor | None = None
        self.attended: Tensor | None = None


@MODELS.register_module()
class VPT(PETLMethod):
    r"""Visual prompt tuning (Jia et al., ECCV 2022): learned tokens beside those of the image.

    Shallow (equations 4 and 5), p prompts enter before the first block and stay, p d parameters.
    Deep (equation 6), every block has prompts of its own, which replace what the previous block
    made of its prompts, L p d parameters. They start uniformly distributed within
    :math:`\pm\sqrt{6 / (3 \cdot \text{patch size}^2 + d)}`, with Swin's first width for d.

    What stands between two blocks never holds prompts, so that intermediate outputs, the final norm
    and any pooling see the image's tokens only. In a ViT they stand behind the patches while a
    block runs (in the paper, between class token and patches: attention does not know the
    difference), from where they come off without a copy.

    In a Swin they take part in every window's attention, where neither the relative position bias
    nor the mask of shifted windows concerns them. What the windows make of them is averaged. In
    the shallow form, patch merging takes each of them for a patch of four equal tokens, as the
    paper's code does (the paper leaves them out there). That code mixes up images and windows when
    it hands the prompts of a batch to the windows, and it pools over prompts as well; this does
    neither. Under drop path, tokens and prompts of an image are dropped independently. Gradient
    checkpointing runs blocks again out of order, when the prompts are gone: it is an error in a
    Swin, and in a ViT in the shallow form.

    In the shallow form with a ``gate`` (GateVPT, Yoo et al., ICML 2023), what block i makes of the
    prompts is blended with what entered it, :math:`g_i P_{out} + (1 - g_i) P_{in}` with
    :math:`g_i = \mathrm{sigmoid}(\gamma_i)`: L - 1 parameters more. The last block has none, for
    nobody reads its prompts. The paper's temperatures of the attention are left out.

    Args:
        num_prompts: The number of prompts p; in the deep form also one number a block, where 0
            leaves a block without prompts.
        deep: Whether every block has its own prompts.
        drop_rate: Dropout of the prompts where they enter.
        fourier: Share of a block's prompts, its first ones, that enter as the real part of their
            two-dimensional Fourier transform (VFPT, Zeng et al., NeurIPS 2024).
        blocks: Transformer blocks that have prompts, in the deep form.
        gate: The :math:`\gamma_i` that gates start at, in the shallow form; None for no gates.

    Raises:
        ValueError: ``num_prompts`` has only zeros, or is a list in the shallow form; ``blocks`` is
            given there, or ``gate`` in the deep form; or ``fourier`` exceeds 1.
    """

    obstacle = 'its prompts take part in the attention, which no weight can stand for'
    acts_at = {'before': ('block',), 'compute': ('attn',), 'adapt': ('block', 'downsample')}
    outermost = True

    def __init__(
        self,
        num_prompts: Positive | Sequence[Natural] = 50,
        deep: bool = True,
        drop_rate: Probability = 0.0,
        fourier: NonNegative = 0.0,
        blocks: Sequence[int] | None = None,
        gate: float | None = None,
    ) -> None:
        super().__init__(('block',), blocks)
        if gate is not None and deep:
            raise ValueError(
                f'gate={gate}: every block of the deep form has prompts of its own, so that '
                'there is nothing to blend; use deep=False'
            )
        self.gate = gate
        if fourier > 1:
            raise ValueError(f'fourier={fourier}: choose a share from 0 to 1')
        self.fourier = fourier
        self.num_prompts = _check_number(num_prompts, deep)
        if blocks is not None and not deep:
            raise ValueError(
                f'blocks={list(blocks)}: shallow prompts go through all blocks; use deep=True'
            )
        self.deep = deep
        self.drop_rate = drop_rate
        self._last_block = 0
        self._passing = _Prompts()

    def select(self, layout: Layout) -> list[Site]:
        """The blocks; in a Swin their attention and, where prompts pass it, the patch merging."""
        if layout.no_prompts:
            raise ValueError(
                f'{self.title} cannot add tokens to those of {type(layout.backbone).__name__}: '
                f'{layout.no_prompts}'
            )
        roles = ['block']
        if layout.windowed:
            roles += ['attn'] if self.deep else ['attn', 'downsample']
        sites = layout.sites(roles, self.blocks)
        self._last_block = max(site.index for site in sites if site.role == 'block')
        return sites

    def build(self, sites: list[Site]) -> None:
        """Creates the prompts: one set in all (shallow), or one a block (deep)."""
        (embedding,) = self.layout.sites(('patch_embed',))
        projection = [m for m in embedding.module.modules() if isinstance(m, nn.Conv2d)][-1]
        bound = math.sqrt(6 / (projection.weight[0].numel() + projection.out_channels))
        blocks = [site for site in sites if site.role == 'block']
        numbers = self.num_prompts
        if isinstance(numbers, int):
            numbers = (numbers,) * len(blocks)
        if not self.deep:
            self.shared['prompts'] = Prompts(numbers[0], blocks[0].width, bound)
            if self.gate is not None:
                self.shared['gates'] = Gates(self._last_block, self.gate)
            return
        if len(numbers) != len(blocks):
            raise ValueError(
                f'num_prompts has {len(numbers)} numbers, but {len(blocks)} blocks are adapted'
            )
        for site, number in zip(blocks, numbers, strict=True):
            if number:
                self.local[site.key] = Prompts(number, site.width, bound)

    def prompts(self, site: Site) -> Tensor:
        """The prompts, of the shape (p, d), that enter at a block."""
        if not self.deep:
            return self._transformed(self.shared['prompts'].tokens)
        if site.key in self.local:
            return self._transformed(self.local[site.key].tokens)
        return next(self.parameters()).new_empty(0, site.width)

    def begin(self) -> None:
        """Forgets what a pass that broke off has left."""
        self._forget()

    def before(self, site: Site, x: Tensor) -> Tensor:
        """Lets prompts enter a block; in a Swin, its attention takes them from here."""
        if self.deep or site.block == 0:
            prompts = self.prompts(site)[None].to(x.dtype)
            dropping = self.training and self.drop_rate > 0
            if dropping or not (self.deep and self.layout.windowed):
                prompts = prompts.expand(x.shape[0], -1, -1)
            # Swin's deep prompts are the same for all images, and remain one set for as long.
            self._passing.tokens = F.dropout(prompts, self.drop_rate, self.training)
        prompts = self._entered(site)
        if self.layout.windowed:
            return x
        self.layout.extend(prompts.shape[1])
        return torch.cat((x, prompts), dim=1)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Takes the prompts off what a block returns, or merges them as patches are merged."""
        if site.role == 'downsample':
            self._merge(site)
            return y
        prompts, attended = self._entered(site), self._passing.attended
        self._forget()
        if self.layout.windowed:
            if attended is not None:  # the next block reads them
                with self.layout.off_grid(prompts.shape[1]):
                    out = self._windows.finish_block(site, prompts, attended)
                self._passing.tokens = self._blend(site, prompts, out)
            return y
        self.layout.extend(-prompts.shape[1])
        length = y.shape[1] - prompts.shape[1]
        if self._carries(site):
            self._passing.tokens = self._blend(site, prompts, y[:, length:])
        return y[:, :length]

    def compute(self, site: Site, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The forward method of a window attention, with the prompts in every window.

        Args:
            site: The attention.
            x: The tokens of all windows, image by image, of the shape (B W, N, C).
            mask: The mask of shifted windows, of the shape (W, N, N).
        """
        layout, attention = self._windows, self._windows.attention(site)
        prompts, carries = self._entered(site), self._carries(site)
        number = prompts.shape[1]
        # Prompts are normalised and projected once an image, or once for all, not once a window.
        with layout.off_grid(number):
            normed = layout.enter_attention(layout.block_of(site), prompts)
            prompt_queries, prompt_keys, prompt_values = attention.heads(normed)
        queries, keys, values = attention.heads(x)
        keys, values = join_sequences(prompt_keys, keys), join_sequences(prompt_values, values)
        if carries:
            queries = join_sequences(prompt_queries, queries)
        keys, values = self.extend(site, keys, values)
        added = keys.shape[2] - x.shape[1]
        bias = F.pad(attention.bias(mask, x.shape[0]), (added, 0, number if carries else 0, 0))
        out = attention.attend(queries, keys, values, bias)
        if carries:
            own = out[:, :, :number].unflatten(0, (prompts.shape[0], -1)).mean(1)
            with layout.off_grid(number):
                self._passing.attended = attention.project(own, normed)
            out = out[:, :, number:]
        return attention.project(out, x)

    def extend(self, site: Site, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a window attention, with others of the method's own in front."""
        return keys, values

    @property
    def _windows(self) -> WindowedLayout:
        return cast(WindowedLayout, self.layout)

    def _transformed(self, tokens: Tensor) -> Tensor:
        if not (number := round(self.fourier * len(tokens))):
            return tokens
        precise = torch.promote_types(tokens.dtype, torch.float32)  # CPUs have none of 16 bits
        changed = torch.fft.fft2(tokens[:number].to(precise)).real.to(tokens.dtype)
        return torch.cat((changed, tokens[number:]))

    def _entered(self, site: Site) -> Tensor:
        if self._passing.tokens is None:
            raise RuntimeError(
                f'the prompts at {site.name!r} are not known: call the backbone itself, not a part '
                'of it, and without gradient checkpointing'
            )
        return self._passing.tokens

    def _carries(self, site: Site) -> bool:
        """Whether the next block needs what this one makes of the prompts."""
        return not self.deep and site.index < self._last_block

    def _blend(self, site: Site, before: Tensor, out: Tensor) -> Tensor:
        """What a block carries on of its prompts before it and what it makes of them."""
        if self.gate is None:
            return out
        return torch.lerp(before, out, self.shared['gates'].logits[site.index].sigmoid())

    def _forget(self) -> None:
        self._passing.tokens = self._passing.attended = None

    def _merge(self, site: Site) -> None:
        if self._passing.tokens is not None:
            with self.layout.off_grid(self._passing.tokens.shape[1]):
                self._passing.tokens = self._windows.merge_tokens(site, self._passing.tokens)


def _check_number(num_prompts: int | Sequence[int], deep: bool) -> int | tuple[int, ...]:
    if isinstance(num_prompts, int):
        return num_prompts
    numbers = tuple(num_prompts)
    if not deep:
        raise ValueError(
            f'num_prompts={list(numbers)}: the shallow form has one number of prompts for the '
            'whole network'
        )
    if not any(numbers):
        raise ValueError(f'num_prompts={list(numbers)}: give one that is not zero')
    return numbers
