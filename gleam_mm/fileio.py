"""Files that are there in full or not at all, whenever a process is killed; all floors write so."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmengine.fileio import LocalBackend, register_backend

try:
    import fcntl
except ImportError:  # Windows, where nothing can be claimed like this
    fcntl = None  # type: ignore[assignment]

UNFINISHED_PREFIX = '.writing-'


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file at once: to a temporary name in its folder, to disk, and then to its name.

    Args:
        path: The file; a file of this name stays whole until the new one is.
        data: What to write.
    """
    with arriving(path, data):
        pass


@contextmanager
def arriving(path: str | Path, data: bytes) -> Iterator[Path]:
    """Writes a file at once, whose name it gets when the block has ended without an error.

    Args:
        path: As of :func:`write_bytes`.
        data: What to write.

    Yields:
        The temporary name, of the same suffix, under which it is on disk already.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{UNFINISHED_PREFIX}{os.getpid()}-{path.name}')
    try:
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def require_new(path: str | Path) -> None:
    """Refuses to replace a file, for tools whose output has a name that the user gives.

    Args:
        path: What is to be written.

    Raises:
        FileExistsError: There is something of this name; a link that leads nowhere counts as well.
    """
    if os.path.lexists(path):
        raise FileExistsError(f'{path} exists already: name another file to write, or remove it')


def remove_unfinished(folder: str | Path) -> list[Path]:
    """Removes what killed processes had begun to write in a folder.

    Args:
        folder: The folder, in which nothing else may be writing at the moment.

    Returns:
        The files that were removed.
    """
    unfinished = sorted(Path(folder).glob(f'{UNFINISHED_PREFIX}*'))
    for path in unfinished:
        path.unlink(missing_ok=True)
    return unfinished


def claim(path: str | Path) -> BinaryIO | None:
    """Claims what a file stands for, for this process alone, until it ends or closes the file.

    However it ends, the claim ends with it; what it forks has no share in it.

    Args:
        path: The file, which is made.

    Returns:
        The open file; None where another process has claimed it.
    """
    file = Path(path).open('ab')  # noqa: SIM115 - open for as long as it is claimed
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # systems differ in which
            file.close()
            return None
        except OSError:
            return file  # a file system that knows no locks
    return file


def listing(
    folder: str | Path, deep: bool = False, within: tuple[Path, ...] = ()
) -> Iterator[tuple[str, bool]]:
    """The files and folders in a folder, in no order; pipes and other things are left out.

    Links are followed, but for one to a folder that it lies in, which would lead round in a circle.

    Args:
        folder: The folder.
        deep: Whether to list what is in its folders as well, at any depth.
        within: The folders that were gone through to this one.

    Yields:
        The path from the folder on, and whether it is a file.

    Raises:
        OSError: A folder cannot be read.
    """
    within = (*within, Path(folder).resolve())
    with os.scandir(folder) as entries:
        for entry in entries:
            link = entry.is_symlink()
            target = Path(entry.path) if link else entry  # to itself, that is none of both
            if target.is_file():
                yield entry.name, True
            elif target.is_dir() and not (link and _leads_back(entry.path, within)):
                yield entry.name, False
                if deep:
                    for path, is_file in listing(entry.path, deep, within):
                        yield f'{entry.name}{os.sep}{path}', is_file


def _leads_back(link: str, within: tuple[Path, ...]) -> bool:
    target = Path(link).resolve()
    return any(folder.is_relative_to(target) for folder in within)


def _sync_folder(folder: Path) -> None:
    """Puts the new name of a file on disk as well. Windows can neither do it nor needs it."""
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written at once; MMEngine itself truncates the old file first.

    Folders are listed by :func:`listing`; MMEngine itself goes round where a link leads back.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes."""
        write_bytes(filepath, bytes(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes text."""
        write_bytes(filepath, obj.encode(encoding))

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Lists folders, and files whose name does not begin with a dot."""
        for path, is_file in listing(dir_path, recursive):
            if not is_file:
                wanted = list_dir
            else:
                wanted = list_file and not Path(path).name.startswith('.')
                wanted = wanted and path.endswith(suffix or '')
            if wanted:
                yield path


register_backend('local', AtomicLocalBackend, force=True, prefixes='')
