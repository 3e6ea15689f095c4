"""Datasets."""

from gleam_mm.datasets.mini import MiniVTAB
from gleam_mm.datasets.procedural import FreshSampler, ProceduralImages
from gleam_mm.datasets.vtab import VTAB1K, VTAB_TASKS

__all__ = ['VTAB1K', 'VTAB_TASKS', 'FreshSampler', 'MiniVTAB', 'ProceduralImages']
