"""An attention module by the steps of its arithmetic, whichever library it comes from."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention:
    """Multi-head self-attention with a fused ``qkv``, as MMPretrain's and timm's ViT have it.

    For those who need more of it than its input and output, such as keys that nobody asked for.
    Linears are called as modules, so that what is hooked on them acts.

    Args:
        module: The attention module. It is referred to, never registered as a submodule.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module  # whose attributes are those of its library's class

    @property
    def scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.module.scale

    @property
    def num_heads(self) -> int:
        """The number of heads."""
        return self.module.num_heads

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, N, c) of what ``qkv`` gives, (B, N, 3 heads c)."""
        heads = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)
        return *self._normalize(queries, keys), values

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, N, c) of tokens (B, N, C)."""
        return self.split(self.module.qkv(x))

    def bias(self, mask: Tensor | None, sequences: int) -> Tensor | None:
        """What is added to the scaled products of queries and keys, or None.

        Args:
            mask: What the module was called with beside the tokens.
            sequences: The number of sequences B.

        Returns:
            A bias of shape (1 or B, heads, N, N).
        """
        return None

    def weights(self, qkv: Tensor, mask: Tensor | None = None) -> Tensor:
        """The weights of the values, of shape (B, heads, N, N); rows sum to one.

        Args:
            qkv: What ``qkv`` gave, of shape (B, N, 3 C).
            mask: What the module was called with beside the tokens.
        """
        queries, keys, _ = self.split(qkv)
        return self._weights(queries, keys, self.bias(mask, qkv.shape[0]))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """The weighted values (B, heads, N, c), under the module's own dropout.

        It is computed by PyTorch's fused function, or step by step where the module is told to, as
        by ``timm.layers.set_fused_attn(False)``.
        """
        bias = None if bias is None else bias.to(queries.dtype)
        drop_rate = self._drop_rate() if self.module.training else 0.0
        if getattr(self.module, 'fused_attn', True):
            return F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=bias, dropout_p=drop_rate, scale=self.scale
            )
        return F.dropout(self._weights(queries, keys, bias), drop_rate) @ values

    def _weights(self, queries: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
        scores = queries @ keys.transpose(-2, -1) * self.scale
        return (scores if bias is None else scores + bias).softmax(-1)

    def project(self, out: Tensor, x: Tensor) -> Tensor:
        """The module's output (B, N, C).

        Args:
            out: The weighted values (B, heads, N, c).
            x: The tokens (B, N, C) that asked for them.
        """
        joined = self._finish(out.transpose(1, 2).flatten(2), x)
        return self.module.proj_drop(self.module.proj(joined))

    def _finish(self, joined: Tensor, x: Tensor) -> Tensor:
        return joined

    def _normalize(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        return queries, keys

    def _drop_rate(self) -> float:
        return self.module.attn_drop.p


class MMPretrainAttention(Attention):
    """MMPretrain's ``MultiheadAttention``."""

    @property
    def scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.module.head_dims**-0.5

    def project(self, out: Tensor, x: Tensor) -> Tensor:
        """The module's output (B, N, C); see :meth:`Attention.project`."""
        return self.module.out_drop(self.module.gamma1(super().project(out, x)))

    def _drop_rate(self) -> float:
        return self.module.attn_drop


class TIMMAttention(Attention):
    """timm's ``Attention``, which may normalise queries, keys and what heads give, and gate it."""

    def _normalize(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        return self.module.q_norm(queries), self.module.k_norm(keys)

    def _finish(self, joined: Tensor, x: Tensor) -> Tensor:
        joined = self.module.norm(joined)
        gate = getattr(self.module, 'gate', None)  # which older versions do not have
        return joined if gate is None else joined * gate(x).sigmoid()


class TorchAttention(Attention):
    """PyTorch's ``nn.MultiheadAttention``, which has no ``qkv``: :meth:`heads` is not for it."""

    @property
    def scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.module.head_dim**-0.5

    def project(self, out: Tensor, x: Tensor) -> Tensor:
        """The module's output (B, N, C); see :meth:`Attention.project`."""
        return self.module.out_proj(out.transpose(1, 2).flatten(2))

    def _drop_rate(self) -> float:
        return self.module.dropout


class WindowAttention(Attention):
    """The attention in Swin's windows, MMPretrain's and timm's: it knows relative positions."""

    def bias(self, mask: Tensor | None, sequences: int) -> Tensor:
        """The bias of relative positions, and the mask of shifted windows (W, N, N) with it."""
        index = self.module.relative_position_index
        table = self.module.relative_position_bias_table[index.view(-1)]
        bias = table.view(*index.shape[-2:], -1).permute(2, 0, 1)[None]
        if mask is None:
            return bias
        return (bias + mask[:, None]).repeat(sequences // len(mask), 1, 1, 1)


def join_sequences(few: Tensor, many: Tensor) -> Tensor:
    """Puts one sequence of heads in front of each of several.

    Args:
        few: Queries, keys or values of the shape (B or 1, heads, p, c).
        many: Those of W sequences an image, image by image: (B W, heads, N, c).

    Returns:
        A tensor of the shape (B W, heads, p + N, c).
    """
    grouped = many.unflatten(0, (few.shape[0], -1))
    few = few[:, None].expand(-1, grouped.shape[1], -1, -1, -1)
    return torch.cat((few, grouped), dim=3).flatten(0, 1)
