"""Where files of weights are, and the error that tells what is wrong with one."""

from pathlib import Path
from typing import Any

SCHEME = 'gleam_mm://'  # a file inside the installed package
ZIP = b'PK'  # how the files of torch.save begin, since torch 1.6


class CheckpointError(RuntimeError):
    """A file that cannot be loaded. The message names it and says what to do."""


def resolve_path(path: str | Path) -> Path:
    """Finds a file on this machine.

    Args:
        path: A path, in which ``~`` is the home directory. ``gleam_mm://weights/x.safetensors`` is
            the file ``weights/x.safetensors`` in the installed package.

    Returns:
        The path in the file system; the file may be missing.
    """
    path = str(path)
    if path.startswith(SCHEME):
        return Path(__file__).parent.parent / path.removeprefix(SCHEME)
    return Path(path).expanduser()


def require_file(path: Path, wanted: str = 'the path of a checkpoint file') -> None:
    """Refuses what is no ordinary file: a named pipe would be waited for.

    Args:
        path: Where it should be.
        wanted: What to give, for the message.

    Raises:
        FileNotFoundError: It is none; the message has the path.
    """
    if not path.is_file():
        what = 'a directory' if path.is_dir() else 'no such file'
        raise FileNotFoundError(f'{path}: {what}; give {wanted}')


def kind(value: Any) -> str:
    """What something is that should be another thing, for a message."""
    empty = hasattr(value, '__len__') and not value
    return f'an empty {type(value).__name__}' if empty else f'a {type(value).__name__}'
