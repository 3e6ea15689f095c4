"""MoLA: LoRAs as experts of each Linear, more of them in some depths than in others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import NonNegative, Positive, Probability
from gleam_mm.layouts import PassState, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.lowrank import add_update, project
from gleam_mm.registry import MODELS


class _Imbalances(PassState):
    """The balance losses of the sites in a pass."""

    def __init__(self) -> None:
        self.of_sites: list[Tensor] = []


class Experts(nn.Module):
    """K pairs of matrices, ``down`` (K r, n) and ``up`` (m, K r), and their ``gate`` (K, n).

    Args:
        number: Number K of experts.
        in_features: Width n that the site reads.
        out_features: Width m that the site writes.
        rank: Inner width r of an expert.
    """

    def __init__(self, number: int, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.number = number
        bound = 1 / in_features**0.5
        self.down = nn.Parameter(torch.empty(number * rank, in_features).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(out_features, number * rank))
        self.gate = nn.Parameter(torch.empty(number, in_features).uniform_(-bound, bound))


@MODELS.register_module()
class MoLA(PETLMethod):
    r"""Mixture of LoRA experts with layer-wise allocation (Gao et al., 2024).

    .. math::
        h = W_0 x + \tfrac{\alpha}{r} \sum_{k} G_k(x) B_k A_k x

    G, for each token, is a softmax over the K experts of a site, of which the largest ones stay,
    divided by their sum. K depends on the depth: ``experts`` gives it for equal parts of the
    blocks, from input to output. A loss keeps all experts in use, the sum over sites of
    :math:`\lambda K \sum_k f_k P_k` with :math:`f_k` the share of decisions for expert k and
    :math:`P_k` its mean probability (Fedus et al., 2022). A site has K (r (m + n) + n) parameters.

    Args:
        rank: Inner width r of an expert.
        experts: Numbers of experts for equal parts of the blocks. (2, 4, 6, 8) is the paper's
            MoLA-triangle inverted, its best.
        top_k: How many experts serve a token, where there are as many.
        alpha: The update is scaled by ``alpha / rank``.
        balance: Weight :math:`\lambda` of the loss.
        drop_rate: Dropout of the input of the experts.
        sites: Roles to adapt.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.
    """

    obstacle = 'a gate chooses experts for each token, which no weight of a Linear does'

    def __init__(
        self,
        rank: Positive = 8,
        experts: Sequence[Positive] = (2, 4, 6, 8),
        top_k: Positive = 2,
        alpha: float = 8.0,
        balance: NonNegative = 1e-3,
        drop_rate: Probability = 0.0,
        sites: Sequence[str] = ('qkv',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.rank = rank
        self.experts = tuple(experts)
        self.top_k = top_k
        self.scale = alpha / rank
        self.balance = balance
        self.drop_rate = drop_rate
        self._imbalances = _Imbalances()

    def build(self, sites: list[Site]) -> None:
        """Creates the experts of every site."""
        depth = len(self.layout.sites(('block',)))
        for site in sites:
            self.linear_of(site)
            number = self.experts[site.index * len(self.experts) // depth]
            self.local[site.key] = Experts(number, site.in_features, site.out_features, self.rank)

    def begin(self) -> None:
        """Forgets the losses of a pass that nobody took."""
        self._imbalances.of_sites = []

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the chosen experts make of the input."""
        own = self.local[site.key]
        weights = self._route(own, x)
        y, z = project(y, F.dropout(x, self.drop_rate, self.training), own.down)
        z = (z.unflatten(-1, (own.number, self.rank)) * weights[..., None].to(z.dtype)).flatten(-2)
        return add_update(y, z, own.up, self.scale)

    def losses(self) -> dict[str, Tensor]:
        """The balance loss of a pass in training."""
        imbalances, self._imbalances.of_sites = self._imbalances.of_sites, []
        return {'balance': self.balance * torch.stack(imbalances).sum()} if imbalances else {}

    def _route(self, own: Experts, x: Tensor) -> Tensor:
        """The weights (..., K) of the experts."""
        probabilities = F.linear(x, own.gate).float().softmax(-1)
        top = probabilities.topk(min(self.top_k, own.number), dim=-1)
        chosen = torch.zeros_like(probabilities).scatter(-1, top.indices, 1.0)
        if self.training and self.balance:
            flat, picked = probabilities.flatten(0, -2), chosen.flatten(0, -2)
            share = picked.mean(0) / picked.sum(-1).mean()
            self._imbalances.of_sites.append(own.number * (share * flat.mean(0)).sum())
        weights = probabilities * chosen
        return weights / weights.sum(-1, keepdim=True)
