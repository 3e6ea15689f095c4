"""Where torch computes; every floor above takes a device that a user names from here."""

import torch


def usable(device: str | torch.device | None = None) -> torch.device:
    """A device that is there.

    Args:
        device: The device; by default a GPU if there is one, else the CPU.

    Raises:
        ValueError: There is no such device, or this build of torch cannot compute on it.
    """
    if device is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # no CUDA in this build; no such name or number
        reason = str(error).partition('\n')[0].rstrip('.')
        raise ValueError(
            f'{device}: torch cannot compute there ({reason}); name another device (--device, '
            'device=), such as cpu'
        ) from error
    return torch.device(device)
