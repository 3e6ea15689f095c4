"""Where studies are: a name, a file, or the URL of a database."""

from pathlib import Path

from gleam_mm.errors import UserError

SWEEPS = Path('work_dirs') / 'sweeps'
DATABASE = 'study.db'


class NoStudyError(UserError):
    """There is no storage of that name."""


def is_url(storage: str) -> bool:
    """Whether a storage is given by its URL, and not by a path or name."""
    return '://' in storage


def find(storage: str) -> str:
    """The file of a sweep that is given by its name or folder.

    Raises:
        NoStudyError: There is none.
    """
    if is_url(storage):
        return storage
    candidates = [Path(storage), Path(storage) / DATABASE, SWEEPS / storage / DATABASE]
    for path in candidates:
        if path.is_file():
            return str(path)
    raise NoStudyError(
        f'{storage}: no such study: neither a file nor {candidates[-1]} exists; give the name of a '
        f'sweep in {SWEEPS}, the path of an SQLite file, or the URL of a database'
    )
