"""Datasets whose images are in a list, and where to find them on disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmpretrain.datasets import BaseDataset

from gleam_mm.arguments import check
from gleam_mm.datasets.cache import CacheError, ImageCache
from gleam_mm.datasets.image_files import ImageFiles, warn
from gleam_mm.datasets.lists import ImageListError, Line, read_list

__all__ = ['DATA_VARIABLE', 'ImageList', 'data_folder']

DATA_VARIABLE = 'GLEAM_DATA'

# Transforms that make the same of an image every time: what comes before all others is cached.
DETERMINISTIC = ('LoadImageFromFile', 'Resize', 'ResizeEdge', 'CenterCrop')


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


class ImageList(ImageFiles, BaseDataset):
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
        **kwargs: Further arguments of :class:`ImageFiles` and MMPretrain's ``BaseDataset``.

    Raises:
        ArgumentError: ``cache`` is neither True nor False.
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
        check(cache, bool, 'cache')
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
            with self._telling_where(0):
                self._image_cache = ImageCache(paths, self._decode)
        except CacheError as error:
            if 'shared memory' not in str(error):
                raise
            # Slower, but the same images: no reason to stop.
            warn(f'{self.ann_file}: not cached: {error}')

    def load_data_list(self) -> list[dict]:
        """Reads the list: ``img_path`` and ``gt_label`` of every line."""
        file = Path(self.ann_file)
        if not file.exists():
            raise FileNotFoundError(self._missing(file))
        if len(self.CLASSES) != self._num_classes:
            raise ValueError(
                f'{file}: {self._title()} has {self._num_classes} classes, but '
                f'{len(self.CLASSES)} names are given in `classes`'
            )
        data = []
        for line in read_list(file, self.class_to_idx):
            if not 0 <= line.label < self._num_classes:
                raise ImageListError(
                    f'{file}, line {line.number}: label {line.label} is out of range; '
                    f'{self._title()} has {self._num_classes} classes, 0 to '
                    f'{self._num_classes - 1}'
                )
            data.append({'img_path': self._path(line), 'gt_label': line.label})
        if not data:
            raise ImageListError(f'{file}: the list is empty')
        return data

    def _path(self, line: Line) -> str:
        return f'{self.image_root}{os.sep}{line.image}'

    def _listed(self) -> Iterator[tuple[int, str]]:
        for line in read_list(Path(self.ann_file), self.class_to_idx):
            yield line.number, self._path(line)

    def prepare_data(self, idx: int) -> dict | None:
        """Runs the pipeline on an image, from the cache where it is in there.

        Raises:
            UnreadableImageError: The image cannot be read; the message names its file and line.
        """
        data = self.get_data_info(idx)
        with self._telling_where(idx):
            if self._image_cache is not None:
                data.update(self._image_cache.get(data['img_path'], self._decode))
                if not self._packs_next:  # OpenCV wants pixel by pixel
                    data['img'] = np.ascontiguousarray(data['img'])
            else:
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
        for transform in self.pipeline.transforms[: self._first]:
            data = transform(data)
        return data

    def _title(self) -> str:
        return type(self).__name__

    def _missing(self, file: Path) -> str:
        return f'{file} does not exist'
