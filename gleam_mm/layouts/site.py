"""Sites: the places in a backbone where a method plugs in, and the grid of the tokens there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from timm.layers import RmsNorm, activations
from torch import Tensor, nn

LINEAR_ROLES = ('qkv', 'proj', 'fc1', 'fc2')
PART_ROLES = ('q', 'k', 'v')
"""Queries, keys and values alone: rows of a fused ``qkv``, or a Linear of their own."""

ROLES = ('patch_embed', 'block', 'norm', 'attn', 'ffn', *LINEAR_ROLES, 'downsample')

NORMS = (nn.LayerNorm, nn.RMSNorm, RmsNorm)

ACTIVATIONS = (nn.GELU, nn.SiLU, activations.GELU, activations.GELUTanh, activations.QuickGELU)
"""Those of which autograd keeps the input; of a ReLU it keeps the output."""

Affine = nn.Linear | nn.LayerNorm | nn.RMSNorm | RmsNorm | nn.Conv2d
"""What has a weight, and may have a bias, that a method may act on."""


class Grid(NamedTuple):
    """The layout of a sequence of tokens.

    First ``prefix`` tokens that stand outside of the grid (class token, registers), then
    ``height x width`` of them row by row, then ``suffix`` more outside of it, such as prompts. A
    sequence that is no part of an image has a height and a width of 0.
    """

    prefix: int
    height: int
    width: int
    suffix: int = 0

    @property
    def tokens(self) -> int:
        """The length of the sequence."""
        return self.prefix + self.height * self.width + self.suffix

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C) outside of the grid, those behind it last, and the tokens on it."""
        if not self.prefix and not self.suffix:  # parts would cost autograd a copy
            return x[:, :0], x
        # Not by slices, each of whose gradients would be as large as x.
        before, inside, behind = x.split((self.prefix, self.height * self.width, self.suffix), 1)
        return torch.cat((before, behind), dim=1) if self.suffix else before, inside

    def join(self, outside: Tensor, inside: Tensor) -> Tensor:
        """Undoes :meth:`split`."""
        if not self.suffix:
            return torch.cat((outside, inside), dim=1)
        before, behind = outside[:, : self.prefix], outside[:, self.prefix :]
        return torch.cat((before, inside, behind), dim=1)


@dataclass(frozen=True, eq=False)
class Site:
    """A place in a backbone where a method plugs in.

    Attributes:
        name: The module's path inside the backbone, such as ``layers.0.attn.qkv``.
        role: What the module does, one of :data:`ROLES`.
        module: The module itself, of whatever class. A site does not own it.
        block: Index of the transformer block over the whole network; None outside of the blocks.
        stage: Index of the stage; 0 everywhere in a backbone without stages.
        width: The token width d of the stage.
        parts: Which of :data:`PART_ROLES` a Linear with the role ``qkv`` writes, in their order and
            as wide as each other; nothing where they are not apart.
        rows: The rows of the module's weight that the site is, if not all of them.
    """

    name: str
    role: str
    module: Any
    block: int | None
    stage: int
    width: int
    parts: tuple[str, ...] = ()
    rows: slice | None = None

    def part(self, role: str) -> 'Site':
        """The site that is one of :attr:`parts` alone."""
        if len(self.parts) == 1:
            return replace(self, role=role)
        each = self.out_features // len(self.parts)
        start = each * self.parts.index(role)
        return replace(
            self,
            name=f'{self.name}.{role}',
            role=role,
            parts=(role,),
            rows=slice(start, start + each),
        )

    @property
    def path(self) -> str:
        """The path of the module, which is the name where the site is all of it."""
        return self.name if self.rows is None else self.name.rpartition('.')[0]

    @property
    def key(self) -> str:
        """The name in a form that PyTorch accepts as the key of a ModuleDict."""
        return self.name.replace('.', '/')

    @property
    def index(self) -> int:
        """The index of the transformer block that the site is in.

        Raises:
            ValueError: It is outside of the blocks.
        """
        if self.block is None:
            raise ValueError(f'site {self.name!r} (role {self.role!r}) is outside of the blocks')
        return self.block

    @property
    def affine(self) -> Affine | None:
        """The module whose weight and bias have the last word on the site's output.

        That is the site's own module for a Linear or a norm, and the norm or else the convolution
        of a patch embedding; None where no single weight decides, as in a whole block.
        """
        if self.role not in ('patch_embed', 'norm', *LINEAR_ROLES, *PART_ROLES):
            return None
        affine = [module for module in self.module.modules() if isinstance(module, Affine)]
        return affine[-1] if affine else None

    @property
    def weight(self) -> Tensor:
        """The weight of :attr:`affine` in floating point, whatever it is stored as.

        Raises:
            ValueError: There is none.
        """
        weight = dequantized(self.require_affine().weight)
        return weight if self.rows is None else weight[self.rows]

    @property
    def bias(self) -> Tensor | None:
        """The bias of :attr:`affine`, or None if that has none.

        Raises:
            ValueError: There is no :attr:`affine`.
        """
        bias = getattr(self.require_affine(), 'bias', None)
        return bias if bias is None or self.rows is None else bias[self.rows]

    def require_affine(self) -> Affine:
        """:attr:`affine`, where a method cannot do without.

        Raises:
            ValueError: There is none.
        """
        if (affine := self.affine) is None:
            raise ValueError(
                f'site {self.name!r} (role {self.role!r}) has no weight of its own, being '
                f'{self.misfit(("patch_embed", "norm", *LINEAR_ROLES))}'
            )
        return affine

    def misfit(self, roles: Sequence[str]) -> str:
        """What to say of a module that is not of the class that is needed: its own, and advice.

        Args:
            roles: Those whose modules are of that class.
        """
        kind = type(self.module)
        advice = f'choose `sites` among {", ".join(roles)}'
        if self.role in (*LINEAR_ROLES, *PART_ROLES):  # a library has put something in its place
            advice = 'it has to be a torch.nn.Linear, quantised or not: docs/howto/quantised.md'
        return f'a {kind.__module__}.{kind.__qualname__}; {advice}'

    @property
    def in_features(self) -> int:
        """How many numbers a token has that the Linear reads."""
        return self._features('in_features')

    @property
    def out_features(self) -> int:
        """How many numbers a token has that the Linear writes."""
        if self.rows is not None:
            return self.rows.stop - self.rows.start
        return self._features('out_features')

    @property
    def blocks_in(self) -> int:
        """How many d-wide blocks the Linear reads (fc2: 4). The last may be cut."""
        return -(-self.in_features // self.width)

    @property
    def blocks_out(self) -> int:
        """How many d-wide blocks the Linear writes (qkv: 3, fc1: 4). The last may be cut."""
        return -(-self.out_features // self.width)

    def _features(self, attribute: str) -> int:
        features = getattr(self.module, attribute, None)
        if features is None:
            raise ValueError(
                f'site {self.name!r} (role {self.role!r}) has no widths, being '
                f'{self.misfit(LINEAR_ROLES)}'
            )
        return features


@dataclass(frozen=True)
class Block:
    """A transformer block, as a layout lists it: its path, the index of its stage and its width."""

    path: str
    stage: int
    width: int


def dequantized(weight: Tensor) -> Tensor:
    """A weight in floating point: itself, or what the quantised one of a library stands for.

    Knows torchao's tensors, which say it by a ``dequantize`` of their own, and the 4-bit parameters
    of bitsandbytes.
    """
    if (state := getattr(weight, 'quant_state', None)) is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, state)
    own = type(weight).dequantize is not Tensor.dequantize
    return weight.dequantize() if own else weight
