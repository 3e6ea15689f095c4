"""Tables and figures of studies, beside the paper's numbers."""

from gleam_mm.report.build import Report, build, make, write
from gleam_mm.report.trials import Study, open_study

__all__ = ['Report', 'Study', 'build', 'make', 'open_study', 'write']
