"""DTL: a narrow side path that reads every block and returns behind the last ones."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Natural, Positive
from gleam_mm.layouts import Layout, PassState, Site
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.lora import LowRankPair
from gleam_mm.petl.probe import INPUT, OUTPUT, Sum
from gleam_mm.registry import MODELS


class _Side(PassState):
    """The side path on its way through the network, in the stage where it is."""

    def __init__(self) -> None:
        self.h: Tensor | None = None


@MODELS.register_module()
class DTL(PETLMethod):
    r"""Disentangled transfer learning, DTL and DTL+ (Fu, Zhu and Wu, AAAI 2024).

    .. math::
        h_{i+1} = h_i + B_i A_i x_i, \qquad
        x'_{i+1} = x_{i+1} + \theta(h_{i+1}) \text{ from block M on}, \qquad
        \theta(h) = h \, \mathrm{sigmoid}(\beta h)

    with x_i what block i reads. No gradient enters the blocks before M, whose activations training
    need not keep. With a ``kernel``, DTL+: a depthwise k x k convolution that the blocks share
    follows :math:`\theta` on the patch grid; other tokens pass by it, as in the official code. B
    starts at zero. A block has 2 d r parameters, the convolution k^2 d.

    In a Swin the side path starts anew at zero where the width changes, and every stage has a
    convolution of its own. Stages that lie before M entirely would add nothing and have neither.

    Args:
        rank: Inner width r.
        start: Index M of the first block whose output is adapted; by default the middle one. The
            blocks before are read.
        kernel: Odd side k of DTL+'s convolution, or None for DTL.
        beta: Steepness of the gate.
        blocks: Transformer blocks to read and to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``kernel`` is even, or no block would be adapted.
    """

    obstacle = (
        'its side path gathers what several blocks read and has a gate inside, which no weight of '
        'a Linear can hold'
    )

    def __init__(
        self,
        rank: Positive = 2,
        start: Natural | None = None,
        kernel: Positive | None = None,
        beta: float = 100.0,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(('block',), blocks)
        self.rank = rank
        if kernel is not None and kernel % 2 == 0:
            raise ValueError(f'kernel={kernel}: choose an odd number')
        self.start = start
        self.kernel = kernel
        self.beta = beta
        self._side = _Side()
        self._start = 0
        self._beginnings: set[int] = set()  # the first block of each stage

    @property
    def reads_grid(self) -> bool:
        """Whether it convolves."""
        return self.kernel is not None

    def select(self, layout: Layout) -> list[Site]:
        """The blocks of the stages in which some block is adapted."""
        number = len(layout.sites(('block',)))
        start = number // 2 if self.start is None else self.start
        sites = super().select(layout)
        adding = {site.stage for site in sites if site.index >= start}
        if not adding:
            raise ValueError(
                f'start={self.start}: none of the adapted blocks is behind it; choose a number '
                f'from 0 to {max(site.index for site in sites)}'
            )
        sites = [site for site in sites if site.stage in adding]
        firsts = {site.stage: site.index for site in reversed(sites)}
        self._start, self._beginnings = start, set(firsts.values())
        return sites

    def sums(self) -> Iterable[Sum]:
        """The side path goes along what the blocks of a stage read and give."""
        stages: dict[int, list[tuple[Site, str]]] = {}
        for site in self.sites.values():
            stages.setdefault(site.stage, []).extend([(site, INPUT), (site, OUTPUT)])
        return stages.values()

    def build(self, sites: list[Site]) -> None:
        """Creates one pair of matrices a block and, for DTL+, one convolution a stage."""
        for site in sites:
            self.local[site.key] = LowRankPair(site.width, site.width, self.rank)
        if self.kernel is None:
            return
        kernels = nn.ParameterDict()
        for stage, width in {site.stage: site.width for site in sites}.items():
            kernels[str(stage)] = nn.Parameter(torch.empty(width, 1, self.kernel, self.kernel))
            nn.init.kaiming_uniform_(kernels[str(stage)], a=math.sqrt(5))
        self.shared['kernels'] = kernels

    def begin(self) -> None:
        """Forgets what a pass that broke off has left."""
        self._side.h = None

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Lets the side path read a block's input, and adds it to the output from block M on.

        Raises:
            RuntimeError: The blocks before were not called in this pass.
        """
        pair, h = self.local[site.key], self._side.h
        z = F.linear(F.linear(x, pair.down), pair.up)
        if site.index not in self._beginnings:
            if h is None:
                raise RuntimeError(
                    f'the side path of DTL is not known at {site.name!r}: call the backbone '
                    'itself, not a part of it, and without gradient checkpointing'
                )
            z = h + z
        self._side.h = z
        return y if site.index < self._start else y + self._return(site, z)

    def end(self, output: Any) -> Any:
        """Forgets the side path."""
        self._side.h = None
        return output

    def _return(self, site: Site, h: Tensor) -> Tensor:
        gated = h * F.sigmoid(self.beta * h)
        if self.kernel is None:
            return gated
        grid = self.layout.grid(site)
        outside, inside = grid.split(gated.flatten(1, -2))
        image = inside.unflatten(1, (grid.height, grid.width)).permute(0, 3, 1, 2)
        kernel = self.shared['kernels'][str(site.stage)]
        mixed = F.conv2d(image, kernel, padding=self.kernel // 2, groups=site.width)
        return grid.join(outside, mixed.permute(0, 2, 3, 1).flatten(1, 2)).view_as(gated)
