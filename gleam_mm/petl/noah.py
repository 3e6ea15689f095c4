"""NOAH: neural prompt search, over adapters, LoRA and visual prompts."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from gleam_mm.arguments import Positive
from gleam_mm.layouts import Site
from gleam_mm.petl.adapter import Adapter
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.bottleneck import Bottleneck
from gleam_mm.petl.lora import LoRA
from gleam_mm.petl.lowrank import add_update, project
from gleam_mm.petl.supernet import Genes, Genotype, Supernet
from gleam_mm.petl.vpt import VPT
from gleam_mm.registry import MODELS

Sizes = Sequence[int]
"""A size for each block; 0 where the block has no such module."""


class SlicedPrompts(VPT):
    """Deep prompts, of which each block uses the first few.

    Args:
        sizes: How many prompts each block has.

    Attributes:
        sizes: How many it uses.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(list(sizes), deep=True)
        self.sizes = sizes

    def prompts(self, site: Site) -> Tensor:
        """The prompts that enter at a block."""
        return super().prompts(site)[: self.sizes[site.index]]

    def slices(self, site: Site, size: int) -> dict[str, Tensor]:
        """The parameters of a block with a smaller size."""
        return {'tokens': self.local[site.key].tokens[:size]}


class SlicedLoRA(LoRA):
    """LoRA, of whose ranks each block uses the first few; arguments as :class:`SlicedPrompts`."""

    alike_everywhere = False

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(max(sizes), alpha=max(sizes))
        self.sizes = sizes

    def build(self, sites: list[Site]) -> None:
        """Creates one pair of matrices a block that has one."""
        for site in sites:
            if rank := self.sizes[site.index]:
                self.local[site.key] = self.build_pair(site, rank)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds the low-rank update, if the block has one."""
        if not (size := self.sizes[site.index]):
            return y
        pair = self.slices(site, size)
        return add_update(*project(y, x, pair['down']), pair['up'], 1.0)

    def slices(self, site: Site, size: int) -> dict[str, Tensor]:
        """The parameters of a block with a smaller size."""
        pair = self.local[site.key]
        return {'down': pair.down[:size], 'up': pair.up[:, :size]}


class SlicedAdapter(Adapter):
    """Adapters whose inner width each block cuts; arguments as :class:`SlicedPrompts`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(max(sizes))
        self.sizes = sizes

    def build(self, sites: list[Site]) -> None:
        """Creates one bottleneck a block that has one."""
        for site in sites:
            if size := self.sizes[site.index]:
                self.local[site.key] = Bottleneck(site.width, size)

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adds what the bottleneck makes of the FFN's output, if the block has one."""
        if not (size := self.sizes[site.index]):
            return y
        part = self.slices(site, size)
        hidden = F.gelu(F.linear(y, part['down.weight'], part['down.bias']))
        return y + F.linear(hidden, part['up.weight'], part['up.bias'])

    def slices(self, site: Site, size: int) -> dict[str, Tensor]:
        """The parameters of a block with a smaller size."""
        down, up = self.local[site.key].down, self.local[site.key].up
        return {
            'down.weight': down.weight[:size],
            'down.bias': down.bias[:size],
            'up.weight': up.weight[:, :size],
            'up.bias': up.bias,
        }


MODULES: dict[str, Callable[[Sizes], PETLMethod]] = {
    'prompts': SlicedPrompts,
    'lora': SlicedLoRA,
    'adapter': SlicedAdapter,
}


@MODELS.register_module()
class NOAH(Supernet):
    r"""Neural prompt search (Zhang, Zhou and Liu, 2022, section 3).

    A block may have visual prompts (:class:`VPT`, deep), a low-rank update of its qkv
    (:class:`LoRA`) and an adapter behind its FFN (:class:`Adapter`). Each of the three has a depth,
    which is the number of blocks, from the first one on, that have it, and a size in each of them:
    the number of prompts, the rank, the bottleneck. Without ``subnet`` it is a supernet, which
    draws depths and sizes in every step; smaller modules are the first rows or columns of the
    largest one.

    A block of width d with p prompts, rank r and bottleneck h has
    :math:`p d + 4 r d + 2 d h + h + d` parameters, the last two terms only with an adapter.
    On ViT-B, a supernet of sizes up to 10 has 654,456, and the 19 subnets that were published
    for VTAB-1K have 360,134 in the mean.

    It differs from the paper's code in nine ways, of which the last changes its count alone:

    ============  ================================  ============================================
    what          here                              the paper's code
    ============  ================================  ============================================
    adapters      GELU                              x sigmoid(1.702 x)
    their start   U at zero: the pretrained model   both matrices N(0, 0.02), biases at zero
    their place   before the FFN's drop path        behind it
    LoRA's start  B at zero: the pretrained model   both matrices N(0, 0.02)
    dropout       none                              0.1 of what A and U read, and of prompts
    prompts       uniform as VPT's                  within :math:`\pm\sqrt{6 / ((P + 1) d)}`
    last ones     removed behind their last block   stay, and go on through the later blocks
    supernet      has its largest size              may be larger than what is searched
    first ones    those of the first block          others with positions before them, which the
                                                    first block replaces unread
    ============  ================================  ============================================

    with P the supernet's number of prompts, 100 in the published configs.

    Args:
        subnet: None for a supernet. Else the path of a JSON file that ``tools/search.py`` wrote, or
            ``dict(prompts=[...], lora=[...], adapter=[...])`` with a size for each block, where 0
            is none. A number stands for the same size in all blocks.
        sizes: The sizes to choose from.
        depths: The depths to choose from; by default a quarter, a half, three quarters and all of
            the network's depth.
        seed: Seed of the subnets that a supernet's training draws.

    Raises:
        ValueError: ``sizes`` or ``depths`` is empty.
    """

    obstacle = (
        'prompts take part in the attention, and adapters have GELU between their two Linears, '
        'which no weight of the backbone can stand for'
    )

    def __init__(
        self,
        subnet: Mapping | str | Path | None = None,
        sizes: Sequence[Positive] = (1, 5, 10),
        depths: Sequence[Positive] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(('block',), subnet, seed)
        self.sizes = _descending(sizes, 'sizes')
        self.depths = None if depths is None else _descending(depths, 'depths')

    def build(self, sites: list[Site]) -> None:
        """Creates what the blocks have at most."""
        blocks = len(sites)
        if self.subnet is None:
            deepest = self.depths[0] if self.depths else blocks
            if deepest > blocks:
                raise ValueError(
                    f'depths={sorted(self.depths or ())}: the backbone has {blocks} blocks only'
                )
            largest = [self.sizes[0]] * deepest + [0] * (blocks - deepest)
            subnet = dict.fromkeys(MODULES, largest)
        else:
            subnet = self.subnet = _checked(self.subnet, blocks)
        for name, sizes in subnet.items():
            if any(sizes):
                self.local[name] = MODULES[name](sizes)

    def genes(self) -> Genes:
        """Depths of modules, as ``<module>.depth``, and their sizes, as ``<module>.<block>``."""
        blocks = len(self.sites)
        quarters = {math.ceil(blocks * quarter / 4) for quarter in range(1, 5)}
        depths = self.depths or tuple(sorted(quarters, reverse=True))
        genes = {}
        for name in MODULES:
            genes[f'{name}.depth'] = depths
            genes.update({f'{name}.{block}': self.sizes for block in range(depths[0])})
        return genes

    def express(self, genotype: Genotype) -> dict:
        """Each module -> its size in each block."""
        return {
            name: [
                genotype[f'{name}.{block}'] if block < genotype[f'{name}.depth'] else 0
                for block in range(len(self.sites))
            ]
            for name in MODULES
        }

    def check(self, subnet: Mapping) -> dict:
        """Completes and checks a subnet.

        Raises:
            ValueError: It names another module, or a size that does not fit.
        """
        return _checked(subnet, len(self.sites), most=self.sizes[0])

    def count(self, subnet: Mapping) -> int:
        """The number of parameters of a subnet."""
        return sum(tensor.numel() for tensor in self._sliced(subnet).values())

    def slices(self, subnet: Mapping) -> dict[str, Tensor]:
        """The state dict of the method with the given subnet, cut out of this supernet's."""
        sliced = self._sliced(self.check(subnet))
        return {name: tensor.detach().clone() for name, tensor in sliced.items()}

    def switch(self, subnet: dict) -> None:
        """Makes a complete subnet that of the coming forward passes."""
        super().switch(subnet)
        for name, part in self.local.items():
            part.sizes = subnet[name]

    def _sliced(self, subnet: Mapping) -> dict[str, Tensor]:
        return {
            f'local.{name}.local.{site.key}.{parameter}': tensor
            for name, part in self.local.items()
            for site in part.sites.values()
            if (size := subnet[name][site.index]) and site.key in part.local
            for parameter, tensor in part.slices(site, size).items()
        }


def _descending(values: Sequence[int], name: str) -> tuple[int, ...]:
    if not values:
        raise ValueError(f'{name}={values!r}: give at least one')
    return tuple(sorted(set(values), reverse=True))


def _checked(subnet: Mapping, blocks: int, most: int | None = None) -> dict:
    if unknown := [name for name in subnet if name not in MODULES]:
        raise ValueError(f'subnet: unknown module {unknown[0]!r}; choose {", ".join(MODULES)}')
    checked = {}
    for name in MODULES:
        sizes = subnet.get(name, 0)
        sizes = [sizes] * blocks if isinstance(sizes, int) else list(sizes)
        if len(sizes) != blocks:
            raise ValueError(
                f'subnet: {name!r} has {len(sizes)} sizes, but the backbone has {blocks} blocks'
            )
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError(f'subnet: {name}={sizes}: give whole numbers of at least 0')
        if most is not None and max(sizes) > most:
            raise ValueError(f'subnet: {name}={sizes}: the supernet has sizes of up to {most}')
        checked[name] = sizes
    return checked
