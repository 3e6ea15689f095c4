"""Supernets: methods that hold many, of which a search chooses one."""

import json
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.step_draws import next_step
from gleam_mm.shell import command

Genes = dict[str, tuple]
"""The name of each choice -> its options, from the one with most parameters to the least."""

Genotype = Mapping[str, Any]
"""The name of each choice -> the chosen option."""


class _ZeroGradients(torch.autograd.Function):
    """Passes a tensor on, and gives each of the parameters a gradient of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


class Supernet(PETLMethod):
    """A method with choices: where the chosen subnet is given an ordinary one, and else a supernet.

    A supernet has the parameters of its largest subnet, and every other subnet is a slice of them.
    Each training step runs one subnet, drawn at random with a seed that depends on nothing but
    ``seed`` and the number of the step: it is the same one in every process of a distributed run,
    and a resumed run goes on as an uninterrupted one. Parameters that a step does not use get a
    gradient of zeros, so that DistributedDataParallel needs no ``find_unused_parameters``.
    Evaluation runs the subnet of :meth:`activate`, or else the largest.

    With a subnet, the method has that subnet's parameters alone. :meth:`slices` gives them out of a
    trained supernet.

    Args:
        sites: As in :class:`~gleam_mm.petl.PETLMethod`.
        subnet: None for a supernet; the subnet; or the path of a JSON file with it.
        seed: Seed of the drawn subnets.
        blocks: As in :class:`~gleam_mm.petl.PETLMethod`.

    Attributes:
        step (Tensor): A buffer of supernets, which counts training steps.

    Raises:
        ValueError: ``subnet`` is no JSON file.
    """

    counters = ('step',)

    def __init__(
        self,
        sites: Sequence[str],
        subnet: Mapping | str | Path | None = None,
        seed: int = 0,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.seed = seed
        self.subnet = read_subnet(subnet)
        self._active: Any = None
        self._current: Any = None
        if self.subnet is None:
            self.register_buffer('step', torch.zeros((), dtype=torch.long))

    @property
    def is_supernet(self) -> bool:
        """Whether no subnet is chosen yet."""
        return self.subnet is None

    @abstractmethod
    def genes(self) -> Genes:
        """The choices of an attached supernet."""

    @abstractmethod
    def express(self, genotype: Genotype) -> dict:
        """The subnet that choices stand for, as ``subnet`` takes it and JSON can say it."""

    @abstractmethod
    def count(self, subnet: Mapping) -> int:
        """The number of parameters of a subnet."""

    @abstractmethod
    def slices(self, subnet: Mapping) -> dict[str, Tensor]:
        """The state dict of the method with the given subnet, cut out of this supernet's."""

    @abstractmethod
    def check(self, subnet: Mapping) -> dict:
        """Completes and checks a subnet for the backbone that the method is attached to.

        Raises:
            ValueError: It does not fit.
        """

    def switch(self, subnet: dict) -> None:
        """Makes a complete subnet that of the coming forward passes."""
        self._current = subnet

    def current(self) -> dict:
        """The complete subnet of this pass."""
        if self.subnet is not None:
            return self.subnet
        if self._current is None:
            self.activate(None)
        return self._current

    def largest(self) -> dict:
        """The subnet with all parameters."""
        return self.express({name: options[0] for name, options in self.genes().items()})

    def draw(self, generator: random.Random) -> dict:
        """A random subnet."""
        return self.express(draw(self.genes(), generator))

    def activate(self, subnet: Mapping | None) -> None:
        """Sets what an attached supernet runs in evaluation: a subnet or, with None, the largest.

        Raises:
            RuntimeError: The subnet was chosen when the method was built.
            ValueError: The subnet does not fit the backbone.
        """
        if not self.is_supernet:
            raise RuntimeError(f'this {type(self).__name__} is no supernet: its subnet is fixed')
        self._active = self.largest() if subnet is None else self.check(subnet)
        self.switch(self._active)

    def begin(self) -> None:
        """Chooses the subnet of a supernet."""
        if not self.is_supernet:
            return
        if self.training:
            self.switch(self.draw(next_step(self.seed, self.step)))
        elif self._active is None:
            self.activate(None)
        else:
            self.switch(self._active)

    def end(self, output: Any) -> Any:
        """Gives every parameter of a supernet a gradient."""
        reaches = self.is_supernet and self.training and torch.is_grad_enabled()
        return self._reached(output) if reaches else output

    def _reached(self, output: Any) -> Any:
        if isinstance(output, Tensor):
            trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
            return _ZeroGradients.apply(output, *trained)
        if isinstance(output, tuple | list):
            return type(output)(self._reached(part) for part in output)
        return output


def draw(genes: Genes, generator: random.Random) -> dict[str, Any]:
    """Draws every choice independently and uniformly."""
    return {name: generator.choice(options) for name, options in genes.items()}


def read_subnet(subnet: Mapping | str | Path | None) -> dict | None:
    """Reads a subnet where its file is given.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else.
    """
    if subnet is None or isinstance(subnet, Mapping):
        return subnet if subnet is None else _plain(subnet)
    path = Path(subnet).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'subnet={str(subnet)!r}: no such file; {command("search")!r} writes one'
        )
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: no JSON file with a subnet ({error})') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: holds no subnet, but a {type(content).__name__}')
    return content


def with_subnets(config: Any) -> Any:
    """A config with the subnets themselves where it has the paths of their files.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file holds something else.
    """
    if isinstance(config, Mapping):
        return {
            key: read_subnet(part)
            if key == 'subnet' and isinstance(part, str | Path)
            else with_subnets(part)
            for key, part in config.items()
        }
    return [with_subnets(part) for part in config] if isinstance(config, list | tuple) else config


def _plain(value: Any) -> Any:
    """Configs' own dicts and lists as plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
