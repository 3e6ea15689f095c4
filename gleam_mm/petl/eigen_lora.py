"""EigenLoRAx: a LoRA within the directions that a library of LoRAs has in common."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.base import PETLMethod, TrainedAdapter
from gleam_mm.petl.constants import constant
from gleam_mm.petl.lowrank import add_update, project
from gleam_mm.registry import MODELS

_LORA = 'LoRA'


class Coefficients(nn.Module):
    """What one site learns, C x r twice, and the directions of length 1 that it mixes."""

    reads: Tensor
    writes: Tensor

    def __init__(self, in_features: int, out_features: int, components: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, components))
        self.up = nn.Parameter(torch.zeros(components, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        for name, width in (('reads', in_features), ('writes', out_features)):
            directions = torch.empty(components, width)
            self.register_buffer(name, nn.init.orthogonal_(directions))

    @constant
    def factors(self) -> tuple[Tensor, Tensor]:
        """A (r, n) and B (m, r)."""
        return self.down @ self.reads, self.writes.T @ self.up


@MODELS.register_module()
class EigenLoRA(PETLMethod):
    r"""EigenLoRAx (Kaushik et al., 2025).

    .. math::
        h = y + \tfrac{\alpha}{r} (V_B \beta) (\gamma V_A) x

    The C rows of :math:`V_A` and the C columns of :math:`V_B` are the principal directions of all A
    and of all B that trained LoRAs have at the site; only :math:`\gamma` (r x C) and :math:`\beta`
    (C x r) are trained, :math:`2 C r` numbers a site. :math:`\beta` starts at zero. ::

        model = dict(
            petl=dict(type='EigenLoRA', components=16, rank=4),
            adapters=dict(pets='pets.safetensors', cars='cars.safetensors'),
        )

    Without adapters the directions are random and orthonormal.

    Args:
        components: The number C of directions; at most as many as all LoRAs have ranks, and as a
            site is wide.
        rank: Inner width r.
        alpha: The update is scaled by ``alpha / rank``.
        sites: Roles to adapt, those of the LoRAs.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: A site is no Linear, or narrower than ``components``.
    """

    def __init__(
        self,
        components: Positive = 16,
        rank: Positive = 8,
        alpha: float = 8.0,
        sites: Sequence[str] = ('qkv',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.components = components
        self.rank = rank
        self.scale = alpha / rank

    def build(self, sites: list[Site]) -> None:
        """Creates the coefficients of every site, and random directions."""
        for site in sites:
            self.linear_of(site)
            if self.components > (most := min(site.in_features, site.out_features)):
                raise ValueError(
                    f'components={self.components} exceeds the {most} directions that there are at '
                    f'{site.name!r}'
                )
            self.local[site.key] = Coefficients(
                site.in_features, site.out_features, self.components, self.rank
            )

    @torch.no_grad()
    def take(self, adapters: Mapping[str, TrainedAdapter]) -> None:
        """Finds the directions that LoRAs have in common.

        Raises:
            ValueError: An adapter is no LoRA, lacks a site, or all have fewer ranks together than
                there are to be directions.
        """
        for name, adapter in adapters.items():
            if str(adapter.config['type']).rpartition('.')[2] != _LORA:
                raise ValueError(f'EigenLoRA takes LoRAs; {name!r} is a {adapter.config["type"]}')
        for site in self.sites.values():
            downs, ups = [], []
            for name, adapter in adapters.items():
                given = {
                    key.rpartition('.')[2]: tensor
                    for key, tensor in adapter.tensors.items()
                    if key.startswith(f'local.{site.key}.')
                }
                if 'up' not in given:
                    raise ValueError(f'EigenLoRA: {name!r} has no LoRA at {site.name!r}')
                # What starts from the weight has the start as well, which it is the change from.
                downs += [given[key] for key in ('down', 'first_down') if key in given]
                ups += [given[key].T for key in ('up', 'first_up') if key in given]
            own = self.local[site.key]
            own.reads.copy_(self._principal(torch.cat(downs)))
            own.writes.copy_(self._principal(torch.cat(ups)))

    def _principal(self, rows: Tensor) -> Tensor:
        if len(rows) < self.components:
            raise ValueError(
                f'components={self.components}: the adapters have {len(rows)} ranks together'
            )
        return torch.linalg.svd(rows.float(), full_matrices=False)[2][: self.components]

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the update to the frozen Linear's output."""
        down, up = self.local[site.key].factors()
        return add_update(*project(y, x, down), up, self.scale)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the update to the site's weight."""
        down, up = self.local[site.key].factors()
        return torch.addmm(weight, up, down, alpha=self.scale), bias
