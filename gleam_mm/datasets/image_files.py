"""What all datasets of image files share: errors that say where, and images that may be missing."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from mmengine.logging import print_log

from gleam_mm.arguments import Natural, check
from gleam_mm.datasets.held_out import HeldOut
from gleam_mm.datasets.images import LoadImageFromFile, UnreadableImageError
from gleam_mm.machine import cores
from gleam_mm.registry import TRANSFORMS

__all__ = ['ImageFiles', 'warn']


@cache
def warn(message: str) -> None:
    """Logs a warning, once a process: a run builds a dataset more than once."""
    print_log(message, logger='current', level=logging.WARNING)


class ImageFiles(HeldOut):
    """Mixed into an MMPretrain dataset whose samples have an ``img_path``.

    Args:
        skip_unreadable: Up to so many images that cannot be read are left out, and named in a
            warning. Every image is decoded once for that, when the dataset is built. By default a
            run ends at the first one.
        pipeline: Transforms. They are looked for from GLEAM-MM's registry on, so that
            ``LoadImageFromFile`` is ours.
        **kwargs: Further arguments of :class:`HeldOut` and the dataset. ``classes`` that are
            numbers are their texts.

    Raises:
        ArgumentError: ``skip_unreadable`` is no number of images.
        UnreadableImageError: More images than that cannot be read.
    """

    def __init__(
        self, *args: Any, skip_unreadable: Natural = 0, pipeline: Sequence = (), **kwargs: Any
    ) -> None:
        check(skip_unreadable, Natural, 'skip_unreadable')
        self.skip_unreadable = skip_unreadable
        transforms = [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline]
        super().__init__(*args, pipeline=transforms, **_with_names(kwargs))

    def filter_data(self) -> list[dict]:
        """Leaves out what cannot be read, with ``skip_unreadable``."""
        samples = super().filter_data()
        if not self.skip_unreadable:
            return samples
        transforms = self.pipeline.transforms
        loader = next(
            (t for t in transforms if isinstance(t, LoadImageFromFile)), LoadImageFromFile()
        )
        first: dict[str, dict] = {}
        for sample in samples:
            first.setdefault(sample['img_path'], sample)
        paths = list(first)
        with ThreadPoolExecutor(cores()) as pool:
            reasons = pool.map(partial(self._error_of, loader), first.values())
            errors = {path: why for path, why in zip(paths, reasons, strict=True) if why}
        if not errors:
            return samples
        told = [f'{why}{self._place(path)}' for path, why in list(errors.items())[:5]]
        if len(errors) > len(told):
            told.append(f'and {len(errors) - len(told):,} more')
        counted = f'{len(errors):,} of {len(paths):,} images'
        if len(errors) > self.skip_unreadable or len(errors) == len(paths):
            raise UnreadableImageError(
                f'{counted} cannot be read, with skip_unreadable={self.skip_unreadable}: '
                f'{"; ".join(told)}'
            )
        warn(f'left out {counted}: {"; ".join(told)}')
        return [sample for sample in samples if sample['img_path'] not in errors]

    def _error_of(self, loader: LoadImageFromFile, sample: dict) -> str | None:
        """Why the picture of a sample cannot be read, or None."""
        try:
            loader.transform(dict(self._with_picture(sample)))
        except UnreadableImageError as error:
            return str(error)
        return None

    def prepare_data(self, idx: int) -> Any:
        """Runs the pipeline on an image.

        Raises:
            UnreadableImageError: The image cannot be read; the message names its file and, where
                there is one, the list and the line.
        """
        with self._telling_where(idx):
            return self.pipeline(self._with_picture(self.get_data_info(idx)))

    def _with_picture(self, sample: dict) -> dict:
        """A sample as the pipeline gets it; with ``img_bytes`` where ``img_path`` is no file.

        Raises:
            UnreadableImageError: These cannot be read.
        """
        return sample

    @contextmanager
    def _telling_where(self, idx: int) -> Iterator[None]:
        try:
            yield
        except UnreadableImageError as error:
            raise UnreadableImageError(
                f'{error}{self._place(self.get_data_info(idx)["img_path"])}; skip_unreadable=10 of '
                'the dataset would leave out up to 10 such images'
            ) from error

    def _place(self, path: str) -> str:
        """Where an image is listed: `` (list.txt, line 3)``, or '' of one that no list has."""
        line = next((number for number, listed in self._listed() if listed == path), None)
        return '' if line is None else f' ({self.ann_file}, line {line})'

    def _listed(self) -> Iterator[tuple[int, str]]:
        """Line and ``img_path`` of all images that are in a list."""
        return iter(())


def _with_names(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a dataset whose classes are texts, as names of folders and columns are."""
    options = dict(options)
    if isinstance(options.get('metainfo'), dict):
        options['metainfo'] = _with_names(options['metainfo'])
    if isinstance(classes := options.get('classes'), list | tuple):
        options['classes'] = tuple(map(str, classes))
    return options
