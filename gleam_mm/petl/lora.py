"""LoRA: low-rank adaptation."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Probability
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bits import Bits, Rounded
from gleam_mm.petl.bottleneck import TokenGate
from gleam_mm.petl.lowrank import FROM_SINGULAR_VALUES, STARTS, add_update, project, together
from gleam_mm.petl.prepared import Prepared
from gleam_mm.registry import MODELS


class LowRankPair(Rounded):
    """The matrices of one site: A as ``down`` (r, n) and B as ``up`` (m, r), which starts at zero.

    Args:
        in_features: Width n that the site reads.
        out_features: Width m that the site writes.
        rank: Inner width r.
        bits: Bits a number, see :class:`~gleam_mm.petl.bits.Rounded`.
    """

    matrices = ('down', 'up')

    def __init__(
        self, in_features: int, out_features: int, rank: int, bits: Bits | None = None
    ) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.register_buffer('first_down', None)
        self.register_buffer('first_up', None)
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.round_to(bits)

    @torch.no_grad()
    def start_from(self, down: Tensor, up: Tensor) -> None:
        """Lets the pair start from A0 and B0, of which copies are kept to be taken off again."""
        self.down.copy_(down)
        self.up.copy_(up)
        self.first_down, self.first_up = self.down.detach().clone(), self.up.detach().clone()

    def freeze_down(self) -> None:
        """Makes a buffer of A."""
        down = self.down.detach()
        del self.down
        self.register_buffer('down', down)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B; with a start of its own, those of the difference B A - B0 A0, twice as many."""
        if self.first_up is None:
            return self.matrix('down'), self.matrix('up')
        return torch.cat((self.down, self.first_down)), torch.cat((self.up, -self.first_up), dim=1)


_WAYS = ('before', 'compute', 'adapt', 'end', 'adopted_parameters')
"""The methods by which a :class:`PETLMethod` changes what a backbone computes."""


@MODELS.register_module()
class LoRA(PETLMethod):
    r"""Low-rank adaptation (Hu et al., ICLR 2022; GLEAM, equation 6).

    .. math::
        h = W_0 x + \tfrac{\alpha}{r} B_s A_s x

    with both matrices local to the site. A fused qkv Linear has one A and a B of 3 d rows, as in
    MMPretrain's and HF PEFT's LoRA. ``sites=('q', 'v')`` gives queries and values a pair each, as
    most published ViTs with LoRA have it.

    A starts at random and B at zero. Other starts come from the weight: from its largest singular
    values (PiSSA, Meng et al., NeurIPS 2024) or its smallest (MiLoRA, Wang et al., NAACL 2025), or
    from its QR decomposition (OLoRA, Büyükakyüz, 2024). They write :math:`B_0 A_0` into the pair
    and take it off the frozen weight, which stays as it is here:

    .. math::
        h = W_0 x + \tfrac{\alpha}{r} (B A - B_0 A_0) x

    so that the model starts as the pretrained one and a file holds :math:`A_0` and :math:`B_0` too.

    With a ``gate``, the update of each token is multiplied by :math:`\mathrm{sigmoid}(g^T x + c)`,
    which starts at one half: soft MoA (Cao et al., 2025) is a :class:`~gleam_mm.petl.Compose` of
    methods that have one.

    Args:
        rank: Inner width r.
        alpha: The update is scaled by ``alpha / rank``.
        drop_rate: Dropout of the input of A.
        sites: Roles to adapt.
        init: How A starts: ``'uniform'``, ``'orthogonal'``, or with B, ``'pissa'``, ``'milora'`` or
            ``'olora'``.
        train_down: Whether A is trained. Frozen, it is best orthogonal (Zhu et al., ICML 2024).
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
        bits: Bits a number of its matrices, 1, 2, 4 or 8, instead of full precision; see
            :class:`~gleam_mm.petl.bits.Rounded`.
        gate: Whether tokens are gated.

    Raises:
        ValueError: ``bits`` is out of range, or meets a frozen A or a start from the weight;
            ``alpha`` is not above 0 for a start from singular values, which divides by it; a site
            is no Linear, or has too few singular values for the rank.
    """

    projects_input = True
    alike_everywhere = True
    """Whether sites of one shape have matrices of one shape, which draw nothing at random."""

    def __init__(
        self,
        rank: Positive = 8,
        alpha: float = 8.0,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = ('qkv',),
        init: Literal['uniform', 'orthogonal', 'pissa', 'milora', 'olora'] = 'uniform',
        train_down: bool = True,
        blocks: Sequence[int] | None = None,
        bits: Bits | None = None,
        gate: bool = False,
    ) -> None:
        super().__init__(sites, blocks)
        self.bits = bits
        self.gate = gate
        if bits is not None and (init in STARTS or not train_down):
            raise ValueError(
                f'bits={bits}: choose train_down=True and an init that is none of '
                f'{", ".join(STARTS)}, whose matrices keep full precision'
            )
        if init in FROM_SINGULAR_VALUES and alpha <= 0:
            raise ValueError(f'alpha={alpha}: init={init!r} divides by it; choose one above 0')
        self.rank = rank
        self.scale = alpha / rank
        self.drop_rate = drop_rate
        self.init = init
        self.train_down = train_down
        self._prepared = Prepared()

    def build(self, sites: list[Site]) -> None:
        """Creates one pair of matrices a site."""
        for site in sites:
            self.local[site.key] = pair = self.build_pair(site, self.rank)
            if self.init == 'orthogonal':
                nn.init.orthogonal_(pair.down)
            elif self.init in STARTS:
                if self.rank > min(site.weight.shape):
                    raise ValueError(
                        f'rank={self.rank} exceeds the {min(site.weight.shape)} singular values of '
                        f'{site.name!r}, from which init={self.init!r} starts'
                    )
                pair.start_from(*STARTS[self.init](site.weight, self.rank, self.scale))
            if not self.train_down:
                pair.freeze_down()
            if self.gate:
                pair.gate = TokenGate(self.linear_of(site).in_features)

    def build_pair(self, site: Site, rank: int) -> LowRankPair:
        """A pair of matrices for one site.

        Raises:
            ValueError: The site is no Linear.
        """
        self.linear_of(site)
        return LowRankPair(site.in_features, site.out_features, rank, self.bits)

    def factors(self, site: Site, training: bool = False) -> tuple[Tensor, Tensor]:
        """The matrices whose product is the update of a site's weight, but for the scale."""
        return self.local[site.key].factors()

    @property
    def beside_factors(self) -> str | None:
        """What the update has beside :meth:`factors`, in words; None where they are all of it."""
        if self.gate:
            return 'a gate of tokens'
        own = [way for way in _WAYS if getattr(type(self), way) is not getattr(LoRA, way)]
        return f'its own {" and ".join(own)}' if own else None

    def prepare(self) -> None:
        """Makes the matrices of all sites ready, those of one shape together, in training."""
        if not self._prepared.begin(self.training and self.alike_everywhere):
            return
        alike: dict[tuple[int, int], list[Site]] = {}
        for site in self.sites.values():
            alike.setdefault((site.in_features, site.out_features), []).append(site)
        for sites in alike.values():
            ready = together([self.factors(site, training=True) for site in sites])
            for site, pair in zip(sites, ready, strict=True):
                self._prepared.put(site, pair)

    def end(self, output: Any) -> Any:
        """Forgets them."""
        self._prepared.end()
        return output

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the low-rank update to the frozen Linear's output."""
        down, up = self._prepared.get(site) or self.factors(site, self.training)
        y, z = project(y, F.dropout(x, self.drop_rate, self.training), down)
        if self.gate:
            z = z * self.local[site.key].gate(x)
        return add_update(y, z, up, self.scale)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the low-rank update to the site's weight.

        Raises:
            MergeError: It is gated.
        """
        if self.gate:
            raise self.refusal('a gate weighs its update for each token, which no weight does')
        down, up = self.factors(site)
        return torch.addmm(weight, up, down, alpha=self.scale), bias
