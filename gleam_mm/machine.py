"""What this machine has; every floor above uses this."""

import os


def cores() -> int:
    """How many cores this process may use; where the system does not tell, all that there are."""
    known = hasattr(os, 'sched_getaffinity')
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
