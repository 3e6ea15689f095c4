"""Photographs in VTAB-1K's layout that are no task of VTAB-1K."""

from pathlib import Path

from gleam_mm.datasets import ImageList
from gleam_mm.registry import DATASETS


@DATASETS.register_module()
class Photographs(ImageList):
    """A task of photographs, as ``prepare.py`` unpacks it.

    Args:
        data_root: The task's folder, with the lists ``<split>.txt``.
        split: ``train800``, ``val200``, ``train800val200`` or ``test``.
        num_classes: Number of classes.
        **kwargs: Further arguments of :class:`~gleam_mm.datasets.ImageList`.
    """

    def __init__(self, data_root: str, split: str, num_classes: int, **kwargs: object) -> None:
        self.split = split
        folder = Path(data_root)
        super().__init__(folder / f'{split}.txt', folder, num_classes, **kwargs)

    def _missing(self, file: Path) -> str:
        return f'{file} does not exist: benchmarks/real/prepare.py makes it'
