"""What is wrong with a training before it starts: ``gleam-mm doctor``."""

from gleam_mm.doctor.examine import examine
from gleam_mm.doctor.findings import Finding
from gleam_mm.doctor.memory import LiveMemory, forecast

__all__ = ['Finding', 'LiveMemory', 'examine', 'forecast']
