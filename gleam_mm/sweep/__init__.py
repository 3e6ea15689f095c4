"""Sweeps: many trainings by one honest protocol, on as many workers and machines as there are.

The storage, and what keeps workers from running the same trial, is Optuna's. Nothing here imports
Optuna before it is needed: it is in the optional extra ``sweep``.
"""

from gleam_mm.sweep.groups import GROUPS, average, expand, over_seeds
from gleam_mm.sweep.plan import Job, Sweep, Variant
from gleam_mm.sweep.results import Result, read_results

__all__ = [
    'GROUPS',
    'Job',
    'Result',
    'Sweep',
    'Variant',
    'average',
    'expand',
    'over_seeds',
    'read_results',
]
