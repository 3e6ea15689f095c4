"""Learning classes session by session with one adapter, built of the toolbox's public parts."""

from gleam_mm.incremental.sessions import Session, Sessions
from gleam_mm.incremental.ssiat import SSIAT

__all__ = ['SSIAT', 'Session', 'Sessions']
