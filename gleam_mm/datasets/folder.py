"""Folders of images as people have them, and MMPretrain's dataset for them."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mmengine.fileio import get_file_backend
from mmpretrain.datasets import CustomDataset as _CustomDataset
from mmpretrain.datasets import ImageNet as _ImageNet
from mmpretrain.datasets import ImageNet21k as _ImageNet21k
from mmpretrain.datasets import Places205 as _Places205

from gleam_mm.datasets.image_files import ImageFiles, warn
from gleam_mm.datasets.images import SUFFIXES
from gleam_mm.datasets.lists import ImageListError, Line, check_path, raw_lines, read_list, text_of
from gleam_mm.fileio import listing
from gleam_mm.messages import listed
from gleam_mm.registry import DATASETS

__all__ = [
    'CustomDataset',
    'ImageNet',
    'ImageNet21k',
    'Places205',
    'is_hidden',
    'pictures_below',
]

# What systems and tools put beside folders of classes.
_HIDDEN = ('__MACOSX', '__pycache__', '@eaDir', '$RECYCLE.BIN', 'lost+found')


def is_hidden(path: str | PurePath) -> bool:
    """Whether a path is, or lies in, a hidden folder: ``.ipynb_checkpoints``, ``__MACOSX``, ..."""
    return any(part.startswith('.') or part in _HIDDEN for part in PurePath(path).parts)


def pictures_below(folder: str | Path) -> Iterator[str]:
    """The pictures in a folder at any depth, as paths from it on, in no order; no hidden ones."""
    for path, is_file in listing(folder, deep=True):
        if is_file and PurePath(path).suffix.lower() in SUFFIXES and not is_hidden(path):
            yield path


@DATASETS.register_module()
class CustomDataset(ImageFiles, _CustomDataset):
    """MMPretrain's dataset of this name: a folder of images, or a list of them.

    It differs in what it does with folders and lists as people have them. Hidden folders
    (``.ipynb_checkpoints``, ``__MACOSX``) are no classes. Files that are left out, classes without
    images, and in training classes of one image are told. Where ``classes`` has the names of the
    folders, each folder is the class of its name, in whichever order and number; a list may have
    names for labels as well. What is wrong with a list is told with its file and line.

    Args:
        extensions: Endings of pictures, by default of all formats that can be decoded.
        only_classes: Whether every folder must have the name of one of the ``classes``, so that
            other names, in their order, do not stand for them.
        part: What this is of a sweep's data, which keeps closed what it must not open yet. The
            pictures are the same; other datasets have a ``split`` for it.
        **kwargs: Further arguments of :class:`ImageFiles` and MMPretrain's ``CustomDataset``.

    Raises:
        ValueError: The folder has no images, its subfolders are not the ``classes``, or these have
            a name twice.
        ImageListError: A line of the list is malformed, or a label out of range.
    """

    def __init__(
        self,
        *args: object,
        extensions: Sequence[str] = SUFFIXES,
        only_classes: bool = False,
        part: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.only_classes, self.part = only_classes, part
        super().__init__(*args, extensions=extensions, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Finds the images: ``img_path`` and, with labels, ``gt_label`` of each."""
        names = list(self.CLASSES or ())
        own = tuple(names) != tuple(self.METAINFO.get('classes', ()))  # ImageNet has two cranes
        if own and len(set(names)) < len(names):
            raise ValueError(
                f'classes: {max(names, key=names.count)!r} is there twice; each class needs a '
                'name of its own'
            )
        if not self.ann_file:
            return self._samples_of_folder()
        samples = [self._sample(line.image, line.label) for line in self._lines()]
        if not samples:
            raise ImageListError(f'{self.ann_file}: the list is empty')
        return samples

    # Lists ---------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[Line]:
        """The lines of the list; without labels those are None."""
        if not self.with_label:
            for number, raw in raw_lines(self.ann_file):
                image = text_of(raw, number, self.ann_file)
                check_path(image, number, self.ann_file, absolute=not self.img_prefix)
                yield Line(number, image, None)
            return
        number = len(self.CLASSES or ())
        for line in read_list(self.ann_file, self._by_name, absolute=not self.img_prefix):
            if line.label < 0 or (number and line.label >= number):
                known = f'; there are {number} classes, 0 to {number - 1}' if number else ''
                raise ImageListError(
                    f'{self.ann_file}, line {line.number}: label {line.label} of {line.image} is '
                    f'out of range{known}'
                )
            yield line

    @property
    def _by_name(self) -> dict[str, int]:
        """The classes by the names that no other class has."""
        times = Counter(self.CLASSES or ())
        return {name: i for i, name in enumerate(self.CLASSES or ()) if times[name] == 1}

    def _listed(self) -> Iterator[tuple[int, str]]:
        if self.ann_file:
            for line in self._lines():
                yield line.number, self._sample(line.image, None)['img_path']

    # Folders -------------------------------------------------------------------------------------

    @property
    def _folder(self) -> str:
        """The folder, for messages."""
        return self.img_prefix.rstrip('/')

    def _samples_of_folder(self) -> list[dict]:
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        if not backend.isdir(self.img_prefix):
            raise FileNotFoundError(
                f'{self._folder} is no folder: put the pictures there, or give another data_root'
            )
        files = backend.list_dir_or_file(self.img_prefix, list_dir=False, recursive=True)
        # Folder by folder, and within one by name, as MMPretrain does.
        files = sorted(files, key=lambda file: file.partition(os.sep))
        folders = sorted(backend.list_dir_or_file(self.img_prefix, list_file=False))
        pictures = [f for f in files if not is_hidden(f) and self.is_valid_file(f)]
        if not self.with_label:
            self._tell_ignored(files, folders, pictures)
            return [self._sample(file) for file in pictures]
        pictures = [file for file in pictures if os.sep in file]
        self._tell_ignored(files, folders, pictures)
        if not pictures:
            raise ValueError(
                f'{self._folder}: there are no pictures in folders of classes, <class>/<image>; '
                f'endings that are read: {", ".join(sorted(self.extensions))}'
            )
        folders = [folder for folder in folders if not is_hidden(folder)]
        self.folder_to_idx = self._labels(folders)
        owners = [file.partition(os.sep)[0] for file in pictures]
        self._tell_few(folders, Counter(owners))
        return [
            self._sample(file, self.folder_to_idx[owner])
            for file, owner in zip(pictures, owners, strict=True)
        ]

    def _labels(self, folders: Sequence[str]) -> dict[str, int]:
        """The class of each folder."""
        names = self.CLASSES
        if names is None:
            self._metainfo['classes'] = names = tuple(folders)
        known = self._by_name
        others = [folder for folder in folders if folder not in known]
        if not others:
            return {folder: known[folder] for folder in folders}
        if not self.only_classes and len(others) == len(folders) == len(names):
            pairs = [f'{folder} is {n!r}' for folder, n in zip(folders, names, strict=True)]
            if tuple(names) != tuple(self.METAINFO.get('classes', ())):
                warn(f'{self._folder}: `classes` name its folders in their order: {listed(pairs)}')
            return {folder: label for label, folder in enumerate(folders)}
        raise ValueError(
            f'{self._folder}: of its {len(folders)} folders of classes these are none of the '
            f'{len(names)} `classes`: {listed(others)} (there are {listed(names)})'
        )

    def _tell_ignored(
        self, files: Sequence[str], folders: Sequence[str], pictures: Sequence[str]
    ) -> None:
        hidden = {_hidden_part(folder) for folder in (*folders, *map(os.path.dirname, files))}
        hidden.discard('')
        taken = set(pictures)
        left = [file for file in files if file not in taken and not is_hidden(file)]
        endings = Counter(
            PurePath(f).suffix.lower() or 'none' for f in left if not self.is_valid_file(f)
        )
        loose = len(left) - endings.total()
        told = [f'hidden folders ({listed(sorted(hidden))})'] if hidden else []
        if endings:
            counts = [f'{ending} {number:,}' for ending, number in endings.most_common()]
            told.append(f'{endings.total():,} files by their ending ({listed(counts)})')
        if loose:
            told.append(f'{loose:,} pictures in no folder of a class')
        if told:
            warn(f'{self._folder}: ignored {", ".join(told)}')

    def _tell_few(self, folders: Sequence[str], counts: Mapping[str, int]) -> None:
        empty = [folder for folder in folders if not counts[folder]]
        if empty:
            warn(f'{self._folder}: classes without pictures: {listed(empty)}')
        single = [folder for folder in folders if counts[folder] == 1]
        if single and not self.test_mode:
            warn(f'{self._folder}: classes with one picture only: {listed(single)}')

    def _sample(self, file: str, label: int | None = None) -> dict:
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        sample = {'img_path': backend.join_path(self.img_prefix, file)}
        return sample if label is None else {**sample, 'gt_label': label}


# MMPretrain's datasets that are folders of classes, under their own names.


@DATASETS.register_module()
class ImageNet(CustomDataset, _ImageNet):
    """MMPretrain's ImageNet-1k, read as :class:`CustomDataset` reads folders and lists."""


@DATASETS.register_module()
class ImageNet21k(CustomDataset, _ImageNet21k):
    """MMPretrain's ImageNet-21k, read as :class:`CustomDataset` reads folders and lists."""


@DATASETS.register_module()
class Places205(CustomDataset, _Places205):
    """MMPretrain's Places205, read as :class:`CustomDataset` reads folders and lists."""


def _hidden_part(folder: str) -> str:
    """The path of the outermost hidden folder that a folder is or lies in, or ''."""
    return next(
        (
            str(part)
            for part in (*reversed(PurePath(folder).parents), PurePath(folder))
            if is_hidden(part)
        ),
        '',
    )
