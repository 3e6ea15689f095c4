"""MiniVTAB: nine small transfer tasks that need no download, in VTAB's three groups."""

from gleam_mm.datasets.mini.dataset import MiniVTAB
from gleam_mm.datasets.mini.tasks import MINI_TASKS

__all__ = ['MINI_TASKS', 'MiniVTAB']
