"""Sweeps: many trainings by one honest protocol, on as many workers and machines as there are.

The storage, and what keeps workers from running the same trial, is Optuna's. Nothing here imports
Optuna before it is needed: it is in the optional extra ``sweep``.
"""

from gleam_mm.sweep.groups import GROUPS, average, expand, over_seeds
from gleam_mm.sweep.plan import Job, Sweep, Variant
from gleam_mm.sweep.results import Result

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


def read_results(storage: str, study: str | None = None) -> list[Result]:
    """Reads a study.

    Args:
        storage: The name of a sweep in ``work_dirs/sweeps``, the path of an SQLite file, or the URL
            of a database.
        study: The name of the study; may be left out where the storage holds one.

    Returns:
        Every training that the sweep consists of, in the order of its methods and datasets, the
        select phase before the final one.

    Raises:
        UserError: There is no such storage or study, or it is not one of a sweep.
    """
    from gleam_mm.sweep.study import open_study  # imports Optuna

    return open_study(storage, study, read_only=True).results()
