"""Tar files of pictures, as WebDataset writes them."""

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gleam_mm.datasets.image_files import warn
from gleam_mm.datasets.images import SUFFIXES
from gleam_mm.datasets.in_rows import PicturesInRows
from gleam_mm.messages import listed
from gleam_mm.registry import DATASETS

__all__ = ['TarDataset', 'shards_of']

_RANGE = re.compile(r'\{(\d+)\.\.(\d+)\}')
_CHUNK = 2**20  # bytes


@DATASETS.register_module()
class TarDataset(PicturesInRows):
    """Shards in WebDataset's layout: ``000.jpg`` beside ``000.cls`` in a tar file.

    The headers are read once, and pictures where they stand in the tar files, in any order: so
    they have to be on a disk and must not be compressed as a whole, which pictures are already.

    Args:
        shards: The files: ``data/train-{000..007}.tar``, ``data/train-*.tar``, or a list. What is
            the name of a file as it stands is no pattern.
        label: The ending of the files with the classes, which are numbers or names.
        **kwargs: Further arguments of :class:`ImageFiles` and MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: There is no such shard.
        ValueError: A shard is no tar file, is compressed, damaged or cut off, goes on behind its
            end, or has a picture without a class, two pictures or classes of one key, or a link to
            what it does not hold.
    """

    def __init__(self, shards: str | Sequence[str], label: str = 'cls', **kwargs: Any) -> None:
        self.shards, self.label = shards, label.lower().lstrip('.')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Reads the headers: ``img_path`` as messages say it, where its bytes are, ``gt_label``."""
        samples: list[dict] = []
        labels: list[int | str] = []
        alone: list[str] = []
        shards = shards_of(self.shards)
        for shard in shards:
            pictures, classes = self._of_shard(shard)
            samples += pictures.values()
            labels += [classes.pop(key) for key in pictures]
            alone += classes
        if alone and samples:
            warn(
                f'{listed(shards)}: ignored {len(alone):,} .{self.label} without a picture: '
                f'{listed(alone)}; endings that are read: {", ".join(sorted(SUFFIXES))}'
            )
        if any(isinstance(label, str) for label in labels):
            labels = [str(label) for label in labels]
        return self.labelled(samples, labels, listed(shards), f'.{self.label}')

    def picture_bytes(self, sample: dict) -> bytes:
        """The encoded picture, out of its shard."""
        with Path(sample['shard']).open('rb') as file:
            file.seek(sample['offset'])
            return file.read(sample['size'])

    def _of_shard(self, shard: Path) -> tuple[dict[str, dict], dict[str, int | str]]:
        """The pictures of a shard by their keys, in its order, and the labels of at least these."""
        pictures: dict[str, dict] = {}
        labels: dict[str, int | str] = {}
        names: dict[tuple[str, bool], str] = {}
        files: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(shard, 'r:') as tar:
                for member in tar:
                    folder, _, name = member.name.rpartition('/')
                    stem, _, ending = name.partition('.')  # as WebDataset splits it
                    key = f'{folder}/{stem}' if folder else stem
                    is_label = ending.lower() == self.label
                    if member.isfile():
                        files[member.name] = member
                    if member.isdir() or not (is_label or f'.{ending.lower()}' in SUFFIXES):
                        continue
                    # What was packed by one of its names already is a link to it by the others.
                    file = files.get(member.linkname if member.islnk() else member.name)
                    if file is None:
                        raise ValueError(
                            f'{shard}: {member.name} is a link to {member.linkname}, without '
                            'contents: pack files in the place of links, as `tar -h` does'
                        )
                    if (key, is_label) in names:
                        what = 'a class' if is_label else 'a picture'
                        raise ValueError(
                            f'{shard}: {names[key, is_label]} and {member.name} are each {what} of '
                            f'{key}: leave one of them'
                        )
                    names[key, is_label] = member.name
                    if is_label:
                        text = tar.extractfile(file).read().decode().strip()  # type: ignore[union-attr]
                        labels[key] = int(text) if re.fullmatch(r'\d+', text) else text
                    else:
                        pictures[key] = dict(
                            img_path=f'{shard}/{member.name}',
                            shard=str(shard),
                            offset=file.offset_data,
                            size=file.size,
                        )
                _check_end(shard, tar.offset)
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise ValueError(
                f'{shard}: cannot be read as a tar file, uncompressed: {error}'
            ) from None
        lacking = sorted(pictures.keys() - labels.keys())
        if lacking:
            raise ValueError(f'{shard}: {lacking[0]} has no .{self.label}; see label=')
        return pictures, labels


def _check_end(shard: Path, offset: int) -> None:
    """Refuses a shard that has more than zeros where Python's ``tarfile`` stopped, or less.

    It stops without a word at any header that it cannot read.
    """
    with shard.open('rb') as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or any(block):
            raise ValueError(
                f'{shard}: ends or is damaged at byte {offset:,}, where the next header or the '
                'zeros of its end should be: it lacks what comes behind; copy or write it again'
            )
        while block := file.read(_CHUNK):
            if block.count(0) < len(block):
                raise ValueError(
                    f'{shard}: goes on behind its end at byte {offset:,}, as tar files do that '
                    'were joined by `cat`: give them one by one, or join them by `tar -A`'
                )


def shards_of(shards: str | Sequence[str]) -> list[Path]:
    """The files that a pattern or a list means.

    Raises:
        FileNotFoundError: One is not there, or none fits.
    """
    patterns = [shards] if isinstance(shards, (str, Path)) else shards
    found: list[Path] = []
    for pattern in map(str, patterns):
        if (file := Path(pattern).expanduser()).is_file():
            found.append(file)
            continue
        for name in _expanded(pattern):
            path = Path(name).expanduser()
            files = sorted(path.parent.glob(path.name))
            if not files:
                raise FileNotFoundError(f'{name}: no such tar file')
            found += files
    return found


def _expanded(pattern: str) -> list[str]:
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    start, end = pattern[: match.start()], pattern[match.end() :]
    return [name for number in numbers for name in _expanded(f'{start}{number}{end}')]
