"""What sites compute with, made for all of them at the beginning of a pass in training.

Site by site it is many small operations, which cost more than their arithmetic.
"""

from typing import Any

import torch

from gleam_mm.layouts import PassState, Site
from gleam_mm.petl.recomputing import recomputed_elsewhere


class Prepared(PassState):
    """By site, what it computes with in this pass.

    There is nothing without gradients, nor where gradient checkpointing or the like decides what
    autograd keeps: a part that runs once more is to read what it computed itself.
    """

    def __init__(self) -> None:
        self._of_sites: dict[str, Any] = {}

    def begin(self, training: bool) -> bool:
        """Forgets the last pass, and says whether to prepare this one."""
        self._of_sites = {}
        return training and self._serves()

    def put(self, site: Site, value: Any) -> None:
        """Keeps what a site computes with."""
        self._of_sites[site.key] = value

    def get(self, site: Site) -> Any:
        """What was prepared for a site, or None."""
        return self._of_sites.get(site.key) if self._serves() else None

    def end(self) -> None:
        """Forgets what was prepared."""
        self._of_sites = {}

    @staticmethod
    def _serves() -> bool:
        return torch.is_grad_enabled() and not recomputed_elsewhere()
