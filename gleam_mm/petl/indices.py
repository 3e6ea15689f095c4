"""Indices that files hold: which channels, columns or entries a method adapts."""

from collections.abc import Mapping

from torch import Tensor


def require_within(tensors: Mapping[str, Tensor], name: str, first: int, end: int) -> None:
    """Refuses indices of a file, of whatever type, that lead to nothing.

    Args:
        tensors: What the file holds.
        name: The name of the indices there. Nothing is checked where they are missing.
        first: The least index.
        end: The first one that is too large.

    Raises:
        RuntimeError: One lies outside.
    """
    if name not in tensors:
        return
    # A file's type may end where the range does: compared in it, the end would wrap.
    indices = tensors[name].long()
    if not ((indices >= first) & (indices < end)).all():
        raise RuntimeError(
            f'{name} has numbers outside of {first} to {end - 1}: the file is damaged or crafted'
        )
