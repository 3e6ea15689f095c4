"""Commands that messages advise, as a shell takes them here; every floor above uses this."""

import shlex
import sys
from pathlib import Path

PROGRAM = 'gleam-mm'


def command(*words: object) -> str:
    """A line for a shell that calls one of the package's commands: ``gleam-mm train CONFIG``."""
    script = Path(sys.executable).with_name(PROGRAM)
    inside = sys.prefix != sys.base_prefix and script.is_relative_to(Path.cwd())
    # From beside a virtual environment, which may not be activated, it needs its path.
    program = script.relative_to(Path.cwd()) if inside and script.is_file() else PROGRAM
    return shlex.join(map(str, (program, *words)))
