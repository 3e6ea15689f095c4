"""Sums with trained adapters: soups, arithmetic of tasks, and a LoRA out of full tuning.

All of it makes ordinary adapter files out of ordinary files; nothing is trained.
"""

from gleam_mm.combine.files import Trained, read
from gleam_mm.combine.sums import HOWS, Combined, combine

__all__ = ['HOWS', 'Combined', 'Trained', 'combine', 'read']
