"""VPT: visual prompt tuning."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from mmcv.cnn.bricks.transformer import PatchMerging
from mmpretrain.models.utils.attention import WindowMSA
from timm.models import swin_transformer as timm_swin
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.petl.base import ForwardReplacement, Handle, PETLMethod
from gleam_mm.petl.layouts import Site
from gleam_mm.registry import MODELS

_WINDOW_ATTENTIONS = (WindowMSA, timm_swin.WindowAttention)
_PATCH_MERGINGS = (PatchMerging, timm_swin.PatchMerging)


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

    Args:
        num_prompts: The number of prompts p; in the deep form also one number a block, where 0
            leaves a block without prompts.
        deep: Whether every block has its own prompts.
        drop_rate: Dropout of the prompts where they enter.

    Raises:
        ValueError: ``num_prompts`` is out of range, or a list in the shallow form.
    """

    obstacle = 'its prompts take part in the attention, which no weight can stand for'

    def __init__(
        self,
        num_prompts: int | Sequence[int] = 50,
        deep: bool = True,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(sites=('patch_embed', 'block'))
        self.num_prompts = _check_number(num_prompts, deep)
        self.deep = deep
        self.drop_rate = drop_rate
        self._prompts: Tensor | None = None
        self._attended: Tensor | None = None
        self._windowed = False

    def build(self, sites: list[Site]) -> None:
        """Creates the prompts: one set in all (shallow), or one a block (deep)."""
        embedding, *blocks = sites
        projection = [m for m in embedding.module.modules() if isinstance(m, nn.Conv2d)][-1]
        bound = math.sqrt(6 / (projection.weight[0].numel() + projection.out_channels))
        if not self.deep:
            self.shared['prompts'] = Prompts(self.num_prompts, blocks[0].width, bound)
            return
        numbers = self.num_prompts
        if isinstance(numbers, int):
            numbers = [numbers] * len(blocks)
        if len(numbers) != len(blocks):
            raise ValueError(
                f'num_prompts has {len(numbers)} numbers, but the backbone has {len(blocks)} blocks'
            )
        for site, number in zip(blocks, numbers, strict=True):
            if number:
                self.local[site.key] = Prompts(number, site.width, bound)

    def prompts(self, site: Site) -> Tensor:
        """The prompts, of the shape (p, d), that enter at a block."""
        if not self.deep:
            return self.shared['prompts'].tokens
        if site.key in self.local:
            return self.local[site.key].tokens
        return next(self.parameters()).new_empty(0, site.width)

    def track(self) -> list[Handle]:
        """Lets prompts enter the blocks and, in a Swin, the windows and the patch merging."""
        blocks = {site.block: site for site in self.layout.sites(('block',))}
        windows = [
            site
            for site in self.layout.sites(('attn',))
            if isinstance(site.module, _WINDOW_ATTENTIONS)
        ]
        self._windowed = bool(windows)
        return [
            *(
                site.module.register_forward_pre_hook(partial(self._enter, site))
                for site in blocks.values()
            ),
            *(
                ForwardReplacement(
                    site.module, partial(self._attend, blocks[site.block], site.module)
                )
                for site in windows
            ),
            *(
                module.register_forward_hook(self._merge_patches)
                for module in self.layout.backbone.modules()
                if isinstance(module, _PATCH_MERGINGS)
            ),
        ]

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Takes the prompts off what a block returns."""
        if site.role == 'patch_embed':
            self._forget()  # what a pass that broke off has left
            return y
        prompts, attended = self._entered(site), self._attended
        self._forget()
        if self._windowed:
            if self._carries(site):
                self._prompts = _pass_on(site.module, prompts, attended)
            return y
        length = y.shape[1] - prompts.shape[1]
        if self._carries(site):
            self._prompts = y[:, length:]
        return y[:, :length]

    def _enter(self, site: Site, module: nn.Module, args: tuple) -> tuple | None:
        x = args[0]
        if self.deep or site.block == 0:
            prompts = self.prompts(site)[None].to(x.dtype)
            dropping = self.training and self.drop_rate > 0
            if dropping or not (self.deep and self._windowed):
                prompts = prompts.expand(x.shape[0], -1, -1)
            # Swin's deep prompts are the same for all images, and remain one set for as long.
            self._prompts = F.dropout(prompts, self.drop_rate, self.training)
        prompts = self._entered(site)
        if self._windowed:
            return None
        return torch.cat((x, prompts), dim=1), *args[1:]

    def _entered(self, site: Site) -> Tensor:
        if self._prompts is None:
            raise RuntimeError(
                f'the prompts at {site.name!r} are not known: call the backbone itself, not a part '
                'of it, and without gradient checkpointing'
            )
        return self._prompts

    def _carries(self, site: Site) -> bool:
        """Whether the next block needs what this one makes of the prompts."""
        return not self.deep and site.block < self._sites[-1].block

    def _forget(self) -> None:
        self._prompts = self._attended = None

    def _attend(
        self, block: Site, attention: nn.Module, x: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The forward method of a window attention, with the prompts in every window.

        Args:
            block: The block that it belongs to.
            attention: The window attention.
            x: The tokens of all windows, image by image, of the shape (B W, N, C).
            mask: The mask of shifted windows, of the shape (W, N, N).
        """
        prompts = self._entered(block)
        number, carries = prompts.shape[1], self._carries(block)
        # Prompts are normalised and projected once an image, or once for all, not once a window.
        inner = zip(
            _heads(attention, block.module.norm1(prompts)), _heads(attention, x), strict=True
        )
        (prompt_queries, queries), *others = inner
        keys, values = (_join(*pair) for pair in others)
        if carries:
            queries = _join(prompt_queries, queries)

        area = x.shape[1]
        bias = attention.relative_position_bias_table[attention.relative_position_index.view(-1)]
        bias = bias.view(area, area, -1).permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(x.shape[0] // mask.shape[0], 1, 1, 1)
        bias = F.pad(bias, (number, 0, number if carries else 0, 0))
        out = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=bias.to(queries.dtype),
            dropout_p=attention.attn_drop.p if attention.training else 0.0,
            scale=attention.scale,
        )
        if carries:
            own = out[:, :, :number].unflatten(0, (prompts.shape[0], -1)).mean(1)
            self._attended = _project(attention, own)
            out = out[:, :, number:]
        return _project(attention, out)

    def _merge_patches(self, module: nn.Module, args: tuple, output: object) -> None:
        if self._prompts is None:
            return
        times = module.reduction.in_features // self._prompts.shape[-1]
        if isinstance(module, timm_swin.PatchMerging):
            wide = self._prompts.repeat(1, 1, times)
        else:  # MMPretrain's numbers the channels of a patch channel by channel
            wide = self._prompts.repeat_interleave(times, dim=-1)
        self._prompts = module.reduction(module.norm(wide))

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_prompts': None, '_attended': None}


def _check_number(num_prompts: int | Sequence[int], deep: bool) -> int | tuple[int, ...]:
    if isinstance(num_prompts, int):
        if num_prompts < 1:
            raise ValueError(f'num_prompts={num_prompts}: choose a whole number of at least 1')
        return num_prompts
    numbers = tuple(num_prompts)
    if not deep:
        raise ValueError(
            f'num_prompts={list(numbers)}: the shallow form has one number of prompts for the '
            'whole network'
        )
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or not any(numbers):
        raise ValueError(
            f'num_prompts={list(numbers)}: give whole numbers of at least 0, and not only zeros'
        )
    return numbers


def _heads(attention: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, N, C / heads) of tokens (B, N, C)."""
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1))
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)


def _join(prompts: Tensor, windows: Tensor) -> Tensor:
    """Puts the prompts (B, heads, p, c) before the tokens (B W, heads, N, c) of each window."""
    windows = windows.unflatten(0, (prompts.shape[0], -1))
    prompts = prompts[:, None].expand(-1, windows.shape[1], -1, -1, -1)
    return torch.cat((prompts, windows), dim=3).flatten(0, 1)


def _project(attention: nn.Module, x: Tensor) -> Tensor:
    """The output projection of (B, heads, N, C / heads)."""
    return attention.proj_drop(attention.proj(x.transpose(1, 2).flatten(2)))


def _pass_on(block: nn.Module, prompts: Tensor, attended: Tensor) -> Tensor:
    """What a Swin block makes of prompts, given the output of its attention for them."""
    if isinstance(block, timm_swin.SwinTransformerBlock):
        prompts = prompts + block.drop_path1(attended)
        return prompts + block.drop_path2(block.mlp(block.norm2(prompts)))
    prompts = prompts + block.attn.drop(attended)
    return block.ffn(block.norm2(prompts), identity=prompts)
