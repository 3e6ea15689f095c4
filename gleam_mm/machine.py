"""What this machine has; every floor above uses this."""

import os
import platform
from pathlib import Path


def cores() -> int:
    """How many cores this process may use; where the system does not tell, all that there are."""
    known = hasattr(os, 'sched_getaffinity')
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def processor() -> str:
    """The name of the processor, as well as the system tells it."""
    info = Path('/proc/cpuinfo')
    if info.is_file():
        for line in info.read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
