"""Datasets one after the other, if their classes are the same."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import ConcatDataset as _ConcatDataset

from gleam_mm.registry import DATASETS

__all__ = ['ConcatDataset']


@DATASETS.register_module()
class ConcatDataset(_ConcatDataset):
    """MMEngine's dataset of this name, which says in what the classes of its parts differ.

    Args:
        datasets: The parts, as datasets or configs.
        **kwargs: Further arguments of MMEngine's ``ConcatDataset``.

    Raises:
        ValueError: The parts have other classes, or the same in another order.
    """

    def __init__(self, datasets: Sequence[Any], **kwargs: object) -> None:
        try:
            super().__init__(datasets, **kwargs)
        except (TypeError, ValueError) as error:
            parts = getattr(self, 'datasets', ())  # none where an option is unknown
            classes = [part.metainfo.get('classes') or () for part in parts]
            for index, theirs in enumerate(classes):
                if theirs and classes[0] and (how := _difference(classes[0], theirs)):
                    raise ValueError(
                        f'ConcatDataset: datasets.0 and datasets.{index} differ in their classes: '
                        f'{how}; give both the same `classes`'
                    ) from error
            raise


def _difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    if len(ours) != len(theirs):
        odd = [name for name in (*ours, *theirs) if name not in ours or name not in theirs]
        return f'{len(ours)} and {len(theirs)}, of one only: {", ".join(odd[:5])}'
    pairs = enumerate(zip(ours, theirs, strict=True))
    return next((f'class {i} is {a!r} and {b!r}' for i, (a, b) in pairs if a != b), '')
