"""AdapterFusion: attention over trained adapters."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Layout, Site
from gleam_mm.petl.base import PETLMethod, overrides
from gleam_mm.petl.compose import Compose
from gleam_mm.registry import MODELS


class Library(Compose):
    """Trained methods that act at the same sites, and that one method calls there.

    Args:
        methods: As in :class:`~gleam_mm.petl.Compose`. All are frozen.

    Raises:
        ValueError: One of them does more than to adapt the output of a module.
    """

    def __init__(
        self, methods: Mapping[str, dict | PETLMethod] | Sequence[dict | PETLMethod]
    ) -> None:
        super().__init__(methods)
        self.frozen = tuple(self.parts)
        for part in self.parts.values():
            part._frozen = part._called = True
            alone = not part.parts and not part.at_affine and not part.outermost
            if not alone or not overrides(part, 'adapt') or overrides(part, 'compute'):
                raise ValueError(
                    f'methods of {type(self).__name__}: {type(part).__name__} does not only adapt '
                    'the outputs of modules, as Adapter, AdaptFormer, Convpass, LoRA and GLEAM do'
                )

    def select(self, layout: Layout) -> list[Site]:
        """The sites at which all of the methods adapt outputs.

        Raises:
            ValueError: They act at different sites.
        """
        acting = {
            name: [site for site in part.select(layout) if part._acts('adapt', site)]
            for name, part in self.parts.items()
        }
        first = next(iter(acting.values()))
        for name, sites in acting.items():
            if [site.key for site in sites] != [site.key for site in first]:
                raise ValueError(
                    f'methods of {type(self).__name__}: {next(iter(acting))!r} and {name!r} act at '
                    'different sites or in different blocks'
                )
        return first


class Fusion(nn.Module):
    """Queries, keys and values of one site."""

    def __init__(self, width: int, rank: int, value: bool) -> None:
        super().__init__()
        self.query = nn.Linear(width, rank)
        self.key = nn.Linear(width, rank)
        for linear in (self.query, self.key):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self.value = nn.Linear(width, width, bias=False) if value else None
        if self.value is not None:
            nn.init.eye_(self.value.weight)

    def forward(self, y: Tensor, updates: Tensor) -> Tensor:
        """Mixes updates (..., K, m) for outputs y (..., m)."""
        scores = (self.query(y).unsqueeze(-2) * self.key(updates)).sum(-1)
        mixed = (scores.softmax(-1).unsqueeze(-1) * updates).sum(-2)
        return mixed if self.value is None else self.value(mixed)


@MODELS.register_module()
class AdapterFusion(Library):
    r"""AdapterFusion (Pfeiffer et al., EACL 2021, section 3.2).

    .. math::
        y + V \sum_k \mathrm{softmax}_k \left( (Q y + q)^T (K u_k + k) \right) u_k

    with :math:`u_k` what the trained adapter k would add to the output y of a site. The adapters
    are frozen; Q, K and V are trained, V from the identity on. A site of width m has
    :math:`2 (m r + r) + m^2` parameters.

    ::

        model = dict(
            petl=dict(type='AdapterFusion', rank=16),
            adapters=dict(pets='pets.safetensors', cars='cars.safetensors'),
        )

    takes the methods from the files. Those may be of different kinds and sizes, but act at the same
    sites. What is saved holds the adapters as well.

    Args:
        methods: Configs of the adapters, by name.
        rank: Width r of queries and keys; None is the width of the site, as in the paper.
        value: Whether there is a V.

    Raises:
        ValueError: There are not two adapters, they act at different sites, or one does more than
            to adapt the output of a module.
    """

    obstacle = 'how much each adapter adds depends on the token'

    def __init__(
        self,
        methods: Mapping[str, dict | PETLMethod] | Sequence[dict | PETLMethod],
        rank: Positive | None = None,
        value: bool = True,
    ) -> None:
        super().__init__(methods)
        if len(self.parts) < 2:
            raise ValueError('methods of AdapterFusion: give two at least')
        self.rank = rank
        self.value = value

    def build(self, sites: list[Site]) -> None:
        """Creates queries, keys and values of every site."""
        for site in sites:
            linear = isinstance(site.module, nn.Linear)
            width = site.out_features if linear else site.width
            self.local[site.key] = Fusion(width, self.rank or width, self.value)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the mixture of what the adapters would add."""
        updates = [  # of a copy, which they may change in place
            part.adapt(part.sites[site.key], x, y.clone()) - y for part in self.parts.values()
        ]
        return y + self.local[site.key](y, torch.stack(updates, dim=-2))
