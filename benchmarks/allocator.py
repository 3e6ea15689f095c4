"""The peak of memory on the CPU by PyTorch's allocator, of whose every block its profiler tells."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak(run: Callable[[], object]) -> int:
    """The most bytes that were taken at a time while something ran, beyond those from before.

    Args:
        run: What runs.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    blocks = [e for e in found.profiler.kineto_results.events() if e.name() == '[memory]']
    now = most = 0
    for block in sorted(blocks, key=lambda block: block.start_ns()):
        now += block.nbytes()
        most = max(most, now)
    return most
