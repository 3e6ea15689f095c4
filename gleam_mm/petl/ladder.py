"""What SLoRA, FacT and GLEAM share: one low-rank path for the whole network, local in its middle.

Every rung of the ladder updates a site as ``y = W0 x + alpha * B L_s MoE A x`` and differs only in
which of the parts it has:

========================  =====  ===  ====
method                    A, B   L_s  MoE
========================  =====  ===  ====
SLoRA (GLEAM, eq. 7)      yes    no   no
FacT, either form         yes    yes  no
GLEAM                     yes    yes  yes
========================  =====  ===  ====
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bits import Bits, Rounded
from gleam_mm.petl.constants import constant
from gleam_mm.petl.lowrank import add_update, project
from gleam_mm.petl.moe import ConvMoE, Mixture
from gleam_mm.petl.prepared import Prepared
from gleam_mm.petl.sharing import for_each, stacked


class SharedProjection(Rounded):
    """The pair A (d -> r) and B (r -> d) that all sites of one token width share.

    B starts at zero, so that the model starts as the pretrained one.

    Args:
        width: Token width d.
        rank: Inner width r.
        bits: Bits a number, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    matrices = ('down', 'up')

    def __init__(self, width: int, rank: int, bits: Bits | None = None) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, width))
        self.up = nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.round_to(bits)


class LocalTransform(Rounded):
    """The 1x1 convolution L_s of one site, from ``blocks_in * r`` to ``blocks_out * r`` channels.

    With few bits and the start as the identity, what is trained and rounded is the difference from
    the identity.

    Args:
        blocks_in: Number of d-wide blocks that the site reads.
        blocks_out: Number of d-wide blocks that the site writes.
        rank: Inner width r.
        init: How it starts: as the ``'identity'`` between blocks, where SLoRA stands all along, or
            ``'uniform'`` as PyTorch's Linears do, which is how FacT's official code starts it.
        bits: Bits a number, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    matrices = ('weight',)

    def __init__(
        self,
        blocks_in: int,
        blocks_out: int,
        rank: int,
        init: str = 'identity',
        bits: Bits | None = None,
    ) -> None:
        super().__init__()
        # Indexed (block out, block in, channel out, channel in).
        identity = torch.eye(rank).expand(blocks_out, blocks_in, rank, rank)
        self.weight = nn.Parameter(identity.clone())
        if init == 'uniform':
            bound = 1 / math.sqrt(rank * blocks_in)
            nn.init.uniform_(self.weight, -bound, bound)
        self.adds_identity = init == 'identity' and bits is not None
        if self.adds_identity:
            nn.init.zeros_(self.weight)
        self.round_to(bits)

    def transform(self) -> Tensor:
        """L_s."""
        weight = self.matrix('weight')
        if not self.adds_identity:
            return weight
        return weight + torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)


class SiteWeights(NamedTuple):
    """The weights of one site's path, with its local transform multiplied into one of the two.

    Attributes:
        down: The weight of a Linear, of shape (r, c_i d). Where the mixture is on the wide side,
            of shape (c_o r, d) or, at a site that narrows, (r, d), which acts on each block.
        up: The weight of a Linear, of shape (c_o d, r). Where the mixture is on the wide side, of
            shape (d, r), which acts on each block, or, at a site that narrows, (d, c_i r).
        mixture: What the mixture between them computes with, where there is one.
    """

    down: Tensor
    up: Tensor
    mixture: Mixture | None


class LadderMethod(PETLMethod):
    r"""A method whose projections are shared by the whole network (in Swin by a stage).

    At a site that reads :math:`c_i` and writes :math:`c_o` blocks of width d,

    .. math::
        y = W_0 x + \alpha B L_s \mathrm{MoE}(A x)

    with A and B acting on each block and L_s mapping :math:`c_i r` to :math:`c_o r` channels.
    Where the MoE stands, the paper does not say. There are two ways, mirror images of each other:

    ===================  ==============================  =============================
    ``moe_side``         qkv, proj, fc1 (:math:`c_i=1`)  fc2 (:math:`c_o=1`)
    ===================  ==============================  =============================
    ``'narrow'`` of L_s  A, MoE, L_s, B                  A, L_s, MoE, B
    ``'wide'``           A, L_s, MoE on each block, B    A, MoE on each block, L_s, B
    ===================  ==============================  =============================

    On the narrow side the MoE mixes r channels once a site. On the wide side it mixes each of the
    blocks with a gate decision of its own. In all cases L_s is next to a projection, and is
    multiplied into that projection's weight instead of into every token.

    Without local transforms L_s is the identity between blocks.

    In training, the weights of all sites of one shape are made by one product at the beginning of a
    pass: what a site does by itself is many small operations, which cost more than their
    arithmetic.

    Where a width is no multiple of d, as in a SwiGLU, the last block is cut: its columns of A, or
    its rows of B, are those that there are numbers for. L_s counts it as a whole block, so that
    what papers print for whole blocks stays as it is.

    Args:
        rank: Inner width r.
        alpha: Scale of the update.
        sites: Roles to adapt.
        local: Whether sites have local transforms.
        mixer: The mixture of experts shared by all sites, or None.
        moe_side: Side of the local transform on which the mixture stands, where there is one.
        local_init: How local transforms start, see :class:`LocalTransform`.
        drop_rate: Dropout of what B reads, in training.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of projections and local transforms, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.

    Raises:
        ValueError: ``bits`` is out of range.
    """

    projects_input = True

    def __init__(
        self,
        rank: Positive,
        alpha: float,
        sites: Sequence[str] = LINEAR_ROLES,
        local: bool = True,
        mixer: ConvMoE | None = None,
        moe_side: Literal['narrow', 'wide'] = 'narrow',
        local_init: Literal['identity', 'uniform'] = 'identity',
        drop_rate: Probability = 0.0,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.bits = bits
        self.rank = rank
        self.alpha = alpha
        self.has_local = local
        self.local_init = local_init
        self.drop_rate = drop_rate
        self.mixes_blocks = mixer is not None and moe_side == 'wide'
        self._prepared = Prepared()
        if mixer is not None:
            self.shared['mixer'] = mixer

    @property
    def reads_grid(self) -> bool:
        """Whether there is a mixture, whose experts convolve."""
        return 'mixer' in self.shared

    def build(self, sites: list[Site]) -> None:
        """Creates one projection a stage and, where wanted, one local transform a site."""
        self.shared['projections'] = nn.ModuleDict(
            {
                str(stage): SharedProjection(width, self.rank, self.bits)
                for stage, width in sorted({(site.stage, site.width) for site in sites})
            }
        )
        for site in sites:
            narrow = min(site.blocks_in, site.blocks_out)
            if narrow > 1:
                raise ValueError(
                    f'site {site.name!r} maps {site.blocks_in} blocks to {site.blocks_out}; '
                    'a shared path needs a site with one block on a side'
                )
            if self.mixes_blocks and _is_cut(site):
                raise ValueError(
                    f"moe_side='wide' mixes whole blocks, and the last one of {site.name!r}, which "
                    f'maps {site.in_features} to {site.out_features}, is cut: choose '
                    f"moe_side='narrow', or leave {site.role!r} out of `sites`"
                )
            if self.rank > site.width:
                raise ValueError(
                    f'rank={self.rank} exceeds the token width {site.width} at {site.name!r}'
                )
            if self.has_local:
                self.local[site.key] = self.build_local(site)

    def build_local(self, site: Site) -> nn.Module:
        """Creates what is a site's own in its local transform."""
        return LocalTransform(
            site.blocks_in, site.blocks_out, self.rank, self.local_init, self.bits
        )

    def local_weight(self, site: Site) -> Tensor:
        """The local transform of one site, of shape (c_o, c_i, r, r)."""
        if self.has_local:
            return self.local[site.key].transform()
        down = self.projection(site).down
        identity = torch.eye(self.rank, dtype=down.dtype, device=down.device)
        return identity.expand(site.blocks_out, site.blocks_in, -1, -1)

    def projection(self, site: Site) -> SharedProjection:
        """The projections A and B that a site shares with others."""
        return self.shared['projections'][str(site.stage)]

    def prepare(self) -> None:
        """Makes the weights of all sites, where they are all that depends on parameters alone."""
        if not self._prepared.begin(self.training and not self.drop_rate):
            return
        alike: dict[tuple, list[Site]] = {}
        for site in self.sites.values():
            shape = site.in_features, site.out_features
            alike.setdefault((site.stage, site.blocks_in, site.blocks_out, *shape), []).append(site)
        mixtures: Iterator[Mixture] = iter(())
        if 'mixer' in self.shared:
            mixtures = iter(self.shared['mixer'].mixtures(len(self.sites)))
        for sites in alike.values():
            for site, (down, up) in zip(sites, self._matrices(sites), strict=True):
                self._prepared.put(site, SiteWeights(down, up, next(mixtures, None)))

    def end(self, output: Any) -> Any:
        """Forgets them."""
        self._prepared.end()
        return output

    def site_weights(self, site: Site) -> SiteWeights:
        """The weights of one site."""
        return self._prepared.get(site) or self._weights(site)

    @constant
    def _weights(self, site: Site) -> SiteWeights:
        ((down, up),) = self._matrices([site])
        mixture = self.shared['mixer'].mixture() if 'mixer' in self.shared else None
        return SiteWeights(down, up, mixture)

    def _matrices(self, sites: Sequence[Site]) -> list[tuple[Tensor, Tensor]]:
        """The two matrices of each of some sites of one shape, that share their projections.

        The second one lies in memory as :func:`~gleam_mm.petl.lowrank.by_columns` would have it.
        """
        first, count, rank = sites[0], len(sites), self.rank
        projection = self.projection(first)
        down, up = projection.matrix('down'), projection.matrix('up').T
        local = stacked([self.local_weight(site) for site in sites])
        local = local.flatten(1, 2)  # (sites, blocks, r, r)
        if self._transforms_first(first):
            if first.blocks_in > 1:
                local = local.transpose(1, 2)
            columns = first.blocks_in * down.shape[1]
            downs = (local.reshape(-1, rank) @ down).view(count, -1, columns)
            pairs = zip(downs.unbind(), for_each(up.contiguous(), count), strict=True)
        else:
            local = local.transpose(2, 3) if first.blocks_in > 1 else local.permute(0, 3, 1, 2)
            rows = first.blocks_out * up.shape[1]
            ups = (local.reshape(-1, rank) @ up).view(count, -1, rows)
            pairs = zip(for_each(down, count), ups.unbind(), strict=True)
        return [(down[:, : first.in_features], up[:, : first.out_features].T) for down, up in pairs]

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the site's low-rank update to the frozen Linear's output."""
        down, up, mixture = self.site_weights(site)
        if self.mixes_blocks:
            z = F.linear(x.unflatten(-1, (-1, down.shape[1])), down).flatten(-2)
        else:
            y, z = project(y, x, down)
        if mixture is not None:
            z = self.mix(site, z, mixture)
        if self.training and self.drop_rate:
            if not self._transforms_first(site):  # dropout, between L_s and B, keeps them apart
                z = F.linear(z, _join(self.local_weight(site).flatten(0, 1), site))
                up = self.projection(site).matrix('up')
            z = F.dropout(z, self.drop_rate)
        return add_update(y, z, up, self.alpha)

    def mix(self, site: Site, z: Tensor, mixture: Mixture) -> Tensor:
        """Mixes tokens of shape (B, N, c r) over their grid, each of c blocks by itself."""
        mixer, grid = self.shared['mixer'], self.layout.grid(site)
        if z.shape[-1] == self.rank:
            return mixer(z, grid, mixture)
        blocks = z.unflatten(-1, (-1, self.rank)).transpose(1, 2)  # (B, c, N, r)
        mixed = mixer(blocks.flatten(0, 1), grid, mixture).unflatten(0, blocks.shape[:2])
        return mixed.transpose(1, 2).flatten(-2)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the site's low-rank update to its weight.

        Raises:
            MergeError: The method has a mixture of experts.
        """
        if 'mixer' in self.shared:
            raise self.refusal(
                'its convolutional experts mix neighbouring tokens and are gated by the image, '
                'which no weight of a Linear does'
            )
        down, up, _ = self.site_weights(site)
        return torch.addmm(weight, up, down, alpha=self.alpha), bias

    def _transforms_first(self, site: Site) -> bool:
        """Whether L_s is the neighbour of A, not of B."""
        return (site.blocks_in > 1) != self.mixes_blocks


def _is_cut(site: Site) -> bool:
    """Whether a side of a site is no whole number of blocks."""
    return bool(site.in_features % site.width or site.out_features % site.width)


def _join(blocks: Tensor, site: Site) -> Tensor:
    """One weight of the weights (c, out, in) of c blocks: over all blocks read, or written."""
    return blocks.transpose(0, 1).flatten(1) if site.blocks_in > 1 else blocks.flatten(0, 1)
