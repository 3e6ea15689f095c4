"""What sparse methods share: they compute with changed weights, and ask for gradients of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from gleam_mm.layouts import Site, dequantized
from gleam_mm.petl.base import LossOfBatch, PETLMethod


class WeightTuning(PETLMethod):
    """A method whose Linears compute with another weight, which a subclass gives."""

    _probed: dict[str, Tensor] | None = None
    """While calibrating: the weights of the sites as leaves of autograd."""

    def changed(self, site: Site, weight: Tensor) -> Tensor:
        """A weight with the update of its site."""
        raise NotImplementedError

    def compute(self, site: Site, x: Tensor) -> Tensor:
        """Lets the updated weight take the place of the frozen one."""
        if self._probed is not None:
            weight = self._probed[site.key]
        else:
            weight = self.changed(site, weight_of(site))
        return F.linear(x, weight, site.module.bias)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds the update to the site's weight."""
        return self.changed(site, weight), bias

    @contextmanager
    def probed(self) -> Iterator[list[Tensor]]:
        """Within it, the sites compute with copies of their weights, which require gradients."""
        self._probed = {
            key: weight_of(site).detach().clone().requires_grad_()
            for key, site in self.sites.items()
        }
        try:
            yield list(self._probed.values())
        finally:
            self._probed = None

    def summed_gradients(
        self, batches: Iterable[LossOfBatch], of: Callable[[Tensor], Tensor] = torch.clone
    ) -> list[Tensor]:
        """The sum over batches of a function of the gradients of the weights, site by site."""
        with self.probed() as weights:
            total = [torch.zeros_like(weight) for weight in weights]
            for loss_of_batch in batches:
                with torch.enable_grad():
                    loss = loss_of_batch()
                gradients = torch.autograd.grad(loss, weights)
                torch._foreach_add_(total, [of(gradient) for gradient in gradients])
        return total


def weight_of(site: Site) -> Tensor:
    """The weight of a site's Linear in floating point."""
    return dequantized(site.module.weight)
