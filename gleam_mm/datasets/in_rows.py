"""Pictures that are in something else than files of their own."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

from mmpretrain.datasets import BaseDataset

from gleam_mm.datasets.image_files import ImageFiles
from gleam_mm.datasets.images import unreadable
from gleam_mm.messages import shown

__all__ = ['PicturesInRows']


class PicturesInRows(ImageFiles, BaseDataset):
    """A dataset that reads a picture's bytes when it is asked for.

    A subclass gives ``picture_bytes`` and fills ``gt_label`` by :meth:`labelled`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ann_file='', **kwargs)

    def picture_bytes(self, sample: dict) -> bytes:
        """The encoded picture of a sample.

        Raises:
            OSError: It cannot be read.
            ValueError: There is none.
        """
        raise NotImplementedError

    def labelled(
        self, samples: Sequence[dict], labels: Sequence[Any], of: str, column: str
    ) -> list[dict]:
        """Samples with the number of their class.

        Classes that nobody has named are the numbers from 0 on, or texts in their order.

        Args:
            samples: The samples.
            labels: A number or a text each.
            of: What messages call the data.
            column: What messages call the labels.

        Raises:
            ValueError: There are none, or a label is no class.
        """
        if not samples:
            raise ValueError(f'{of}: there are no pictures')
        for sample, label in zip(samples, labels, strict=True):
            if not _may_be_class(label):
                raise ValueError(
                    f'{sample["img_path"]}: {column} is {shown(label)}, which is no class: label '
                    'each picture with a whole number or a text, or leave it out'
                )
        texts = any(isinstance(label, str) for label in labels)
        if self.CLASSES is None:
            if texts:
                names = tuple(sorted({str(label) for label in labels}))
            else:
                names = tuple(str(number) for number in range(int(max(labels)) + 1))
            self._metainfo['classes'] = names
        numbers = self.class_to_idx if texts else {}
        found = [numbers.get(str(label), -1) if texts else int(label) for label in labels]
        for sample, label, number in zip(samples, labels, found, strict=True):
            if not 0 <= number < len(self.CLASSES):
                raise ValueError(
                    f'{sample["img_path"]}: {column} is {label!r}, none of the '
                    f'{len(self.CLASSES)} classes'
                )
        return [{**s, 'gt_label': n} for s, n in zip(samples, found, strict=True)]

    def _with_picture(self, sample: dict) -> dict:
        try:
            return {**sample, 'img_bytes': self.picture_bytes(sample)}
        except (OSError, ValueError) as error:
            raise unreadable(sample['img_path'], error) from error


def _may_be_class(label: Any) -> bool:
    """Whether a label is a text or a whole number, and neither missing nor one of a measurement."""
    if isinstance(label, str):
        return bool(label.strip())
    return isinstance(label, Real) and label % 1 == 0
