"""Datasets that are text files of lines ``<image> <label>``, and where to find them on disk."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from gleam_mm.datasets.cache import CacheError, ImageCache

__all__ = ['DATA_VARIABLE', 'ImageList', 'ImageListError', 'Line', 'data_folder', 'read_list']

DATA_VARIABLE = 'GLEAM_DATA'

# Transforms that make the same of an image every time: what comes before all others is cached.
DETERMINISTIC = ('LoadImageFromFile', 'Resize', 'ResizeEdge', 'CenterCrop')


class ImageListError(ValueError):
    """A line of a list is malformed; the message names file and line."""


class Line(NamedTuple):
    """A line of a list: its number from 1 on, the path as written, and the label."""

    number: int
    image: str
    label: int


def data_folder(name: str, given: str | Path | None = None) -> Path:
    """The folder of a collection of datasets, such as ``vtab-1k``.

    Args:
        name: The folder's name inside the data root.
        given: The folder itself, from a config. It wins where it is given.

    Returns:
        ``given``, else ``$GLEAM_DATA/<name>`` where that variable is set, else ``data/<name>``.
    """
    if given is not None:
        return Path(given).expanduser()
    return Path(os.environ.get(DATA_VARIABLE) or 'data').expanduser() / name


def read_list(file: Path) -> Iterator[Line]:
    """Reads a list. Paths may have blanks: a line is split at its last one.

    Raises:
        ImageListError: A line is malformed.
    """
    with file.open(encoding='utf-8') as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield parse_line(line, number, file)


def parse_line(line: str, number: int, file: Path) -> Line:
    """Splits one line of a list.

    Raises:
        ImageListError: It has no path, or its label is no integer.
    """
    parts = line.strip().rsplit(maxsplit=1)
    try:
        return Line(number, parts[0], int(parts[1]))
    except (IndexError, ValueError):
        raise ImageListError(
            f'{file}, line {number}: expected `<image path> <label>`, found {line.strip()!r}'
        ) from None


def reason_of(error: Exception) -> str:
    """What a decoder says in one line, without the addresses of Python objects."""
    text = re.sub(r' (file )?<_io\.\w+[^>]*>', '', ' '.join(str(error).split()))
    return text or type(error).__name__


class ImageList(BaseDataset):
    """A dataset that is a list of images with labels.

    Subclasses give the file, the folder that its paths are relative to, and the number of classes.

    Args:
        file: The list.
        image_root: The folder that the paths of the list are relative to.
        num_classes: Labels are 0 to ``num_classes - 1``. The classes are called by their numbers
            unless ``metainfo`` or ``classes`` has names.
        cache: Keeps what the pipeline's first, deterministic transforms make of an image in memory
            that the workers of the data loader share: the first epoch decodes, the others read.
        metainfo: Further information about the dataset.
        **kwargs: Further arguments of MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: The list does not exist.
        ImageListError: A line of it is malformed, or a label out of range.
        CacheError: The pipeline does not begin with transforms that can be cached, or the images
            differ in size.
    """

    def __init__(
        self,
        file: Path,
        image_root: Path,
        num_classes: int,
        cache: bool = False,
        metainfo: dict | None = None,
        **kwargs: object,
    ) -> None:
        self.cache = cache
        self._image_cache: ImageCache | None = None
        self.image_root = image_root
        self._num_classes = num_classes
        if kwargs.get('classes') is None:
            names = tuple(str(index) for index in range(num_classes))
            metainfo = {'classes': names, **(metainfo or {})}
        super().__init__(ann_file=str(file), metainfo=metainfo, **kwargs)

    def full_init(self) -> None:
        """Reads the list and, with ``cache``, allocates the memory of the cache."""
        if self._fully_initialized:
            return
        super().full_init()
        transforms = self.pipeline.transforms
        self._first = 0
        for transform in transforms:
            if type(transform).__name__ not in DETERMINISTIC:
                break
            self._first += 1
        rest = transforms[self._first :]
        self._packs_next = bool(rest) and type(rest[0]).__name__ == 'PackInputs'
        if self.cache and len(self):
            self._make_cache()

    def _make_cache(self) -> None:
        if not self._first:
            raise CacheError(
                f'cache=True: the pipeline of {type(self).__name__} begins with nothing that can '
                f'be cached; its first transforms must be some of {", ".join(DETERMINISTIC)}'
            )
        paths = [self.get_data_info(index)['img_path'] for index in range(len(self))]
        try:
            self._image_cache = ImageCache(paths, self._decode)
        except CacheError as error:
            if 'shared memory' not in str(error):
                raise
            # Slower, but the same images: no reason to stop.
            print_log(
                f'{self.ann_file}: not cached: {error}', logger='current', level=logging.WARNING
            )

    def load_data_list(self) -> list[dict]:
        """Reads the list: ``img_path`` and ``gt_label`` of every line."""
        file = Path(self.ann_file)
        if not file.is_file():
            raise FileNotFoundError(self._missing(file))
        root, data = self.image_root, []
        names = len(self.CLASSES)
        if names != self._num_classes:
            raise ValueError(
                f'{file}: {self._title()} has {self._num_classes} classes, but {names} names are '
                'given in `classes`'
            )
        for line in read_list(file):
            if not 0 <= line.label < self._num_classes:
                raise ImageListError(
                    f'{file}, line {line.number}: label {line.label} is out of range; '
                    f'{self._title()} has {self._num_classes} classes, 0 to '
                    f'{self._num_classes - 1}'
                )
            data.append({'img_path': f'{root}{os.sep}{line.image}', 'gt_label': line.label})
        if not data:
            raise ImageListError(f'{file}: the list is empty')
        return data

    def prepare_data(self, idx: int) -> dict | None:
        """Runs the pipeline on an image, from the cache where it is in there.

        Raises:
            OSError: The image cannot be read; the message names the file.
        """
        data = self.get_data_info(idx)
        if self._image_cache is not None:
            data.update(self._image_cache.get(data['img_path'], self._decode))
            if not self._packs_next:  # OpenCV wants pixel by pixel
                data['img'] = np.ascontiguousarray(data['img'])
        elif self._first:
            data = self._begin(data)
        for transform in self.pipeline.transforms[self._first :]:
            data = transform(data)
            if data is None:
                return None
        return data

    def _decode(self, path: str) -> dict:
        """What the first transforms make of a file, without what was known before."""
        data = self._begin({'img_path': path})
        del data['img_path']
        return data

    def _begin(self, data: dict) -> dict:
        path = data['img_path']
        for transform in self.pipeline.transforms[: self._first]:
            try:
                data = transform(data)
            except Exception as error:  # decoders raise nearly anything
                if not Path(path).exists():
                    raise FileNotFoundError(
                        f'{path} does not exist, but {self.ann_file} lists it'
                    ) from error
                raise OSError(f'{path}: cannot be read as an image: {reason_of(error)}') from error
        return data

    def _title(self) -> str:
        return type(self).__name__

    def _missing(self, file: Path) -> str:
        return f'{file} does not exist'
