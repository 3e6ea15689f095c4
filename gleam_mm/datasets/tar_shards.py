"""Tar files of pictures, as WebDataset writes them."""

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gleam_mm.datasets.images import SUFFIXES
from gleam_mm.datasets.in_rows import PicturesInRows
from gleam_mm.registry import DATASETS

__all__ = ['TarDataset', 'shards_of']

_RANGE = re.compile(r'\{(\d+)\.\.(\d+)\}')


@DATASETS.register_module()
class TarDataset(PicturesInRows):
    """Shards in WebDataset's layout: ``000.jpg`` beside ``000.cls`` in a tar file.

    The headers are read once, and pictures where they stand in the tar files, in any order: so
    they have to be on a disk and must not be compressed as a whole, which pictures are already.

    Args:
        shards: The files: ``data/train-{000..007}.tar``, ``data/train-*.tar``, or a list.
        label: The ending of the files with the classes, which are numbers or names.
        **kwargs: Further arguments of :class:`ImageFiles` and MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: There is no such shard.
        ValueError: A shard is no tar file, is compressed, or has a picture without a class.
    """

    def __init__(self, shards: str | Sequence[str], label: str = 'cls', **kwargs: Any) -> None:
        self.shards, self.label = shards, label.lower().lstrip('.')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Reads the headers: ``img_path`` as messages say it, where its bytes are, ``gt_label``."""
        samples: list[dict] = []
        labels: list[int | str] = []
        for shard in shards_of(self.shards):
            for sample, label in self._of_shard(shard):
                samples.append(sample)
                labels.append(label)
        if any(isinstance(label, str) for label in labels):
            labels = [str(label) for label in labels]
        return self.labelled(samples, labels, str(self.shards), f'.{self.label}')

    def picture_bytes(self, sample: dict) -> bytes:
        """The encoded picture, out of its shard."""
        with Path(sample['shard']).open('rb') as file:
            file.seek(sample['offset'])
            return file.read(sample['size'])

    def _of_shard(self, shard: Path) -> list[tuple[dict, int | str]]:
        """The pictures of a shard with their labels, in its order."""
        pictures: dict[str, dict] = {}
        labels: dict[str, int | str] = {}
        try:
            with tarfile.open(shard, 'r:') as tar:
                for member in tar:
                    folder, _, name = member.name.rpartition('/')
                    stem, _, ending = name.partition('.')  # as WebDataset splits it
                    key = f'{folder}/{stem}' if folder else stem
                    if not member.isfile():
                        continue
                    if ending.lower() == self.label:
                        text = tar.extractfile(member).read().decode().strip()  # type: ignore[union-attr]
                        labels[key] = int(text) if re.fullmatch(r'\d+', text) else text
                    elif f'.{ending.lower()}' in SUFFIXES:
                        pictures[key] = dict(
                            img_path=f'{shard}/{member.name}',
                            shard=str(shard),
                            offset=member.offset_data,
                            size=member.size,
                        )
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise ValueError(
                f'{shard}: cannot be read as a tar file, uncompressed: {error}'
            ) from None
        lacking = sorted(pictures.keys() - labels.keys())
        if lacking:
            raise ValueError(f'{shard}: {lacking[0]} has no .{self.label}; see label=')
        return [(picture, labels[key]) for key, picture in pictures.items()]


def shards_of(shards: str | Sequence[str]) -> list[Path]:
    """The files that a pattern or a list means.

    Raises:
        FileNotFoundError: One is not there, or none fits.
    """
    patterns = [shards] if isinstance(shards, (str, Path)) else shards
    found: list[Path] = []
    for pattern in map(str, patterns):
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
