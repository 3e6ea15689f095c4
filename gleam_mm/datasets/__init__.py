"""Datasets."""

from gleam_mm.datasets.vtab import VTAB1K, VTAB_TASKS

__all__ = ['VTAB1K', 'VTAB_TASKS']
