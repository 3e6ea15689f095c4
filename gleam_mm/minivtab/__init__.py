"""Images drawn by formulas: MiniVTAB's tasks, and the corpus that the small backbones learnt from.

MiniVTAB is nine small transfer tasks that need no download, in VTAB's three groups.
"""

from gleam_mm.minivtab.dataset import MiniVTAB
from gleam_mm.minivtab.procedural import FreshSampler, ProceduralImages
from gleam_mm.minivtab.tasks import MINI_TASKS

__all__ = ['MINI_TASKS', 'FreshSampler', 'MiniVTAB', 'ProceduralImages']
