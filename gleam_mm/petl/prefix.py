"""Prefix tuning: learned keys and values in front of those of the tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Attention, Site, join_sequences
from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


class Prefix(nn.Module):
    """Learned ``keys`` and ``values`` of the shape (heads, p, c), or one tensor for both.

    Args:
        number: How many, p.
        heads: Number of heads.
        channels: Width c of a head.
        shared: Whether the keys serve as values, too.
    """

    def __init__(self, number: int, heads: int, channels: int, shared: bool = False) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(heads, number, channels))
        self.values = None if shared else nn.Parameter(torch.empty(heads, number, channels))
        for parameter in self.parameters():
            nn.init.kaiming_uniform_(parameter)

    def extend(self, keys: Tensor, values: Tensor, drop_rate: float) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, N, c) with the prefix in front, under dropout."""
        own = self.keys, self.keys if self.values is None else self.values
        dropped = (F.dropout(part, drop_rate)[None] for part in own)
        pairs = zip(dropped, (keys, values), strict=True)
        extended_keys, extended_values = (join_sequences(few.to(t.dtype), t) for few, t in pairs)
        return extended_keys, extended_values

    def attend(
        self, attention: Attention, x: Tensor, mask: Tensor | None, drop_rate: float
    ) -> Tensor:
        """What an attention gives for tokens (B, N, d), with the prefix among keys and values."""
        queries, keys, values = attention.heads(x)
        keys, values = self.extend(keys, values, drop_rate)
        bias = attention.bias(mask, x.shape[0])
        bias = None if bias is None else F.pad(bias, (keys.shape[2] - x.shape[1], 0))
        return attention.project(attention.attend(queries, keys, values, bias), x)


@MODELS.register_module()
class PrefixTuning(PETLMethod):
    r"""Prefix tuning (Li and Liang, ACL 2021), in every block as P-tuning v2 (Liu et al., 2022).

    .. math::
        \mathrm{softmax}(Q [P_K; K]^T / \sqrt{c}) \, [P_V; V]

    with p learned keys and values for each head, which nothing queries. They are trained as they
    are, where the paper makes them of a smaller matrix by an MLP in training; and they start as in
    E2VPT. In a Swin they stand in every window, where the relative position bias does not concern
    them. A block has 2 p d parameters.

    Args:
        number: How many, p.
        shared: Whether keys and values are the same p d numbers.
        drop_rate: Dropout of the prefix.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    obstacle = 'its keys and values stand beside those of the tokens, which no weight can stand for'

    def __init__(
        self,
        number: Positive = 10,
        shared: bool = False,
        drop_rate: Probability = 0.0,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(('attn',), blocks)
        self.number = number
        self.shares = shared
        self.drop_rate = drop_rate

    def build(self, sites: list[Site]) -> None:
        """Creates one prefix a block."""
        for site in sites:
            heads = self.layout.attention(site).num_heads
            self.local[site.key] = Prefix(self.number, heads, site.width // heads, self.shares)

    def compute(
        self, site: Site, x: Tensor, mask: Tensor | None = None, **options: object
    ) -> Tensor:
        """The forward method of an attention, with the prefix among keys and values."""
        require_plain(site, options)
        drop_rate = self.drop_rate if self.training else 0.0
        return self.local[site.key].attend(self.layout.attention(site), x, mask, drop_rate)


def require_plain(site: Site, options: dict[str, object]) -> None:
    """Refuses what an attention may be asked for, and is not by an image.

    Raises:
        RuntimeError: An option, such as a mask, has a value.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            raise RuntimeError(
                f'{site.name!r} is called with {name}, which no prefix can be combined with'
            )
