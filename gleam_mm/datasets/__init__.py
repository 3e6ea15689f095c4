"""Datasets that are trained on: what is on disk, and how it is read."""

from gleam_mm.datasets.cache import CacheError, ImageCache
from gleam_mm.datasets.concat import ConcatDataset
from gleam_mm.datasets.csv_list import CSVDataset
from gleam_mm.datasets.fewshot import FGVC_TASKS, FewShotFGVC
from gleam_mm.datasets.folder import CustomDataset, ImageNet, ImageNet21k, Places205
from gleam_mm.datasets.hugging_face import HuggingFaceDataset
from gleam_mm.datasets.image_list import DATA_VARIABLE, ImageList
from gleam_mm.datasets.images import LoadImageFromFile, UnreadableImageError
from gleam_mm.datasets.lists import ImageListError
from gleam_mm.datasets.tar_shards import TarDataset
from gleam_mm.datasets.vtab import VTAB1K, VTAB_TASKS

__all__ = [
    'DATA_VARIABLE',
    'FGVC_TASKS',
    'VTAB1K',
    'VTAB_TASKS',
    'CSVDataset',
    'CacheError',
    'ConcatDataset',
    'CustomDataset',
    'FewShotFGVC',
    'HuggingFaceDataset',
    'ImageCache',
    'ImageList',
    'ImageListError',
    'ImageNet',
    'ImageNet21k',
    'LoadImageFromFile',
    'Places205',
    'TarDataset',
    'UnreadableImageError',
]
