"""Lists of images: text files of lines ``<image> <label>``."""

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import NamedTuple

from mmengine import fileio

from gleam_mm.messages import hint_at

__all__ = [
    'ImageListError',
    'Line',
    'check_path',
    'content_of',
    'parse_line',
    'raw_lines',
    'read_list',
    'text_of',
]

_NO_NAMES: Mapping[str, int] = MappingProxyType({})


class ImageListError(ValueError):
    """A line of a list is malformed; the message names file and line."""


class Line(NamedTuple):
    """A line of a list: its number from 1 on, the path as written, and the label."""

    number: int
    image: str
    label: int


def content_of(file: str | Path) -> bytes:
    """What is in a list, without a byte order mark.

    Raises:
        ImageListError: It is no regular file, such as a pipe, which might never end.
    """
    if Path(file).exists() and not Path(file).is_file():
        raise ImageListError(f'{file}: a list must be a regular file')
    return fileio.get(str(file)).removeprefix(codecs.BOM_UTF8)


def raw_lines(file: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a list that are not blank, with their numbers; without a byte order mark.

    Raises:
        ImageListError: It is no regular file.
    """
    for number, line in enumerate(content_of(file).splitlines(), start=1):
        if line.strip():
            yield number, line


def read_list(
    file: str | Path, names: Mapping[str, int] = _NO_NAMES, absolute: bool = False
) -> Iterator[Line]:
    """Reads a list; see :func:`parse_line`.

    Raises:
        ImageListError: A line is malformed.
    """
    for number, raw in raw_lines(file):
        yield parse_line(raw, number, file, names, absolute)


def parse_line(
    raw: bytes,
    number: int,
    file: str | Path,
    names: Mapping[str, int] = _NO_NAMES,
    absolute: bool = False,
) -> Line:
    """Splits one line of a list. Paths may have blanks: it is split at its last one.

    Args:
        raw: The line.
        number: Its number.
        file: The list, for the message.
        names: Class names that may stand for labels.
        absolute: Whether a path may be absolute, where there is no folder to be relative to.

    Raises:
        ImageListError: The line is not UTF-8, has no path or one that leads out of the folder of
            the images, or its label is neither an integer nor a class.
    """
    text = text_of(raw, number, file)
    words = text.split()
    # A name may have blanks as well: the longest one that the line ends with.
    for start in range(1, len(words)):
        name = ' '.join(words[start:])
        is_number = start == len(words) - 1 and re.fullmatch('[+-]?[0-9]+', name)
        if is_number and (0 <= int(name) < len(names) or name not in names):
            label = int(name)
        elif name in names:
            label = names[name]
        else:
            continue
        image = text.rsplit(maxsplit=len(words) - start)[0]
        check_path(image, number, file, absolute)
        return Line(number, image, label)
    raise ImageListError(
        f'{file}, line {number}: expected `<image path> <label>`, the label a number or the name '
        f'of a class, found {text!r}{hint_at(words[-1], names)}'
    )


def text_of(raw: bytes, number: int, file: str | Path) -> str:
    """A line as text.

    Raises:
        ImageListError: It is not UTF-8.
    """
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        raise ImageListError(f'{file}, line {number}: not UTF-8') from None


def check_path(image: str, number: int, file: str | Path, absolute: bool = False) -> None:
    """Refuses a path that leads out of the folder that the list's paths are relative to.

    Links are followed: a folder of images may well be one.

    Raises:
        ImageListError: The path has a ``..``, or is absolute without ``absolute``.
    """
    posix, windows = PurePosixPath(image), PureWindowsPath(image)
    rooted = posix.is_absolute() or windows.drive
    if (rooted and not absolute) or '..' in windows.parts:
        raise ImageListError(
            f'{file}, line {number}: {image!r} leads out of the folder of the images; the paths of '
            'a list are relative to it, without `..`'
        )
