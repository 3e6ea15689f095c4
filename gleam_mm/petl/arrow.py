"""Arrow: routing among trained LoRAs, without a task's name and without training."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive, Range
from gleam_mm.layouts import Site
from gleam_mm.petl.adapter_fusion import Library
from gleam_mm.petl.attachments import Attachments
from gleam_mm.petl.base import PETLMethod, TrainedAdapter
from gleam_mm.petl.lora import LoRA
from gleam_mm.registry import MODELS

Temperature = Annotated[float, Range(0, open=True)]


@MODELS.register_module()
class Arrow(Library):
    r"""Arrow routing (Ostapenko et al., ICML 2024, section 3.2).

    .. math::
        y + \sum_k g_k s_k B_k A_k x, \quad
        g = \mathrm{softmax} \left( \mathrm{top}_n \, |v_k^T x| / \tau \right)

    for each token x, with :math:`v_k` the direction that the LoRA k changes most: the right
    singular vector of :math:`B_k A_k` with the largest singular value. Nothing is trained but the
    head. The LoRAs come from files::

        model = dict(
            petl=dict(type='Arrow', top_k=2),
            adapters=dict(pets='pets.safetensors', cars='cars.safetensors'),
        )

    Args:
        methods: Configs of the LoRAs, by name; of any ranks.
        top_k: How many LoRAs n a token has.
        temperature: The temperature of the softmax.

    Raises:
        ValueError: A method is no LoRA, or has more than matrices, they act at different sites, or
            there are fewer than ``top_k``.
    """

    obstacle = 'how much each LoRA adds depends on the token'

    def __init__(
        self,
        methods: Mapping[str, dict | PETLMethod] | Sequence[dict | PETLMethod],
        top_k: Positive = 1,
        temperature: Temperature = 1.0,
    ) -> None:
        super().__init__(methods)
        for name, part in self.parts.items():
            if not isinstance(part, LoRA):
                raise ValueError(f'methods of Arrow: {name!r} is a {type(part).__name__}, no LoRA')
            if (beside := part.beside_factors) is not None:
                raise ValueError(
                    f'methods of Arrow: {name!r} has {beside}, and tokens are routed to pairs of '
                    'matrices alone'
                )
        if top_k > len(self.parts):
            raise ValueError(f'top_k={top_k}: there are {len(self.parts)} LoRAs to choose from')
        self.top_k = top_k
        self.temperature = temperature

    def take(self, adapters: Mapping[str, TrainedAdapter]) -> None:
        """Loads trained LoRAs, and finds their directions."""
        super().take(adapters)
        self._find_directions()

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the chosen LoRAs make of each token."""
        scores = F.linear(x, self.local[site.key].directions).abs() / self.temperature
        best = scores.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(-1))
        inner, ups = [], []
        for part, gate in zip(self._loras(), gates.split(1, dim=-1), strict=True):
            down, up = part.factors(part.sites[site.key])
            inner.append(gate * part.scale * F.linear(x, down))
            ups.append(up)
        return y + F.linear(torch.cat(inner, dim=-1), torch.cat(ups, dim=1))

    def _prepare(self, attachments: Attachments) -> None:
        first = not self._built
        super()._prepare(attachments)
        if first:
            for key in self.sites:
                self.local[key] = nn.Module()
            self._find_directions()

    def _loras(self) -> list[Any]:
        return list(self.parts.values())

    @torch.no_grad()
    def _find_directions(self) -> None:
        for key in self.sites:
            found = [_direction(*part.factors(part.sites[key])) for part in self._loras()]
            self.local[key].register_buffer('directions', torch.stack(found))


def _direction(down: Tensor, up: Tensor) -> Tensor:
    """The first right singular vector of the product of two thin matrices."""
    q, r = torch.linalg.qr(down.float().T)
    _, _, vh = torch.linalg.svd(torch.linalg.qr(up.float()).R @ r.T)
    return (q @ vh[0]).to(down.dtype)
