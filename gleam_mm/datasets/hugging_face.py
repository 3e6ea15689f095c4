"""Datasets of Hugging Face's library ``datasets``."""

from pathlib import Path
from typing import Any

from gleam_mm.datasets.images import read_image, reason_of
from gleam_mm.datasets.in_rows import PicturesInRows
from gleam_mm.messages import hint_at
from gleam_mm.registry import DATASETS

__all__ = ['HuggingFaceDataset', 'encoded']


@DATASETS.register_module()
class HuggingFaceDataset(PicturesInRows):
    """A dataset of the library ``datasets``: of the hub, in a folder, or what it has saved.

    Pictures are decoded by the pipeline's ``LoadImageFromFile``, as files are.

    Args:
        path: What ``save_to_disk`` has written; or what ``datasets.load_dataset`` takes: a name on
            the hub, a folder of ``.parquet`` files, ``imagefolder``.
        split: Of the dataset, in its own words: ``train``, ``train[:80%]``. What was saved as one
            dataset, without splits, is ``train``.
        image_column: The column with the pictures; by default the only one that has any.
        label_column: The column with the classes; by default the only ``ClassLabel``.
        options: Further arguments of ``load_dataset``, such as ``name`` or ``data_dir``.
        **kwargs: Further arguments of :class:`ImageFiles` and MMPretrain's ``BaseDataset``.

    Raises:
        ImportError: The library is not installed.
        ValueError: There is no such split or column, or several could be meant.
    """

    def __init__(
        self,
        path: str,
        split: str = 'train',
        image_column: str | None = None,
        label_column: str | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.path, self.split, self.options = str(path), split, dict(options or {})
        self.image_column, self.label_column = image_column, label_column
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Reads the labels: ``img_path``, which is what messages say, ``row`` and ``gt_label``."""
        try:
            import datasets  # an extra, which takes a second to import
        except ImportError as error:
            raise ImportError(
                "HuggingFaceDataset needs pip install 'gleam-mm[datasets]'"
            ) from error
        data = self._load(datasets)
        features = data.features
        image = self._column('image_column', self.image_column, features, datasets.Image)
        label = self._column('label_column', self.label_column, features, datasets.ClassLabel)
        if self.CLASSES is None and isinstance(features[label], datasets.ClassLabel):
            self._metainfo['classes'] = tuple(features[label].names)
        labels = data.with_format(None)[label][:]
        # Their bytes, not decoded, for the pipeline's own loader.
        self._pictures = data.select_columns([image]).cast_column(
            image, datasets.Image(decode=False)
        )
        self._image = image
        of = f'{self.path}[{self.split}]'
        samples = [{'img_path': f'{of}[{row}]', 'row': row} for row in range(len(data))]
        return self.labelled(samples, labels, of, f'column {label!r}')

    def picture_bytes(self, sample: dict) -> bytes:
        """The encoded picture of a row."""
        return encoded(self._pictures[sample['row']][self._image])

    def _load(self, datasets: Any) -> Any:
        folder = Path(self.path).expanduser()
        saved = any((folder / name).is_file() for name in ('dataset_dict.json', 'state.json'))
        if not saved:
            path = str(folder) if folder.exists() else self.path
            return datasets.load_dataset(path, split=self.split, **self.options)
        loaded = datasets.load_from_disk(str(folder))
        if not isinstance(loaded, datasets.DatasetDict):
            if self.split not in ('train', str(loaded.split)):  # the default, for one without any
                raise ValueError(
                    f'{self.path}: no split {self.split!r}; it was saved as one dataset, without '
                    "splits, and is read whole with split='train': hold_out=0.2 leaves a part of "
                    'it out'
                )
            return loaded
        if self.split not in loaded:
            raise ValueError(
                f'{self.path}: no split {self.split!r}{hint_at(self.split, loaded)}; it has '
                f'{", ".join(loaded)}'
            )
        return loaded[self.split]

    def _column(self, argument: str, name: str | None, features: Any, kind: type) -> str:
        if name is not None:
            if name not in features:
                raise ValueError(
                    f'{self.path}: {argument}={name!r}{hint_at(name, features)}; it has '
                    f'{", ".join(features)}'
                )
            return name
        fitting = [key for key, feature in features.items() if isinstance(feature, kind)]
        if len(fitting) != 1:
            raise ValueError(
                f'{self.path}: give {argument}; of {", ".join(features)}, {len(fitting)} are of '
                f'the type {kind.__name__}'
            )
        return fitting[0]


def encoded(picture: dict[str, Any] | None) -> bytes:
    """The encoded picture of what a row has, not decoded, in a column of pictures.

    Raises:
        ValueError: It has none, or the file that it names cannot be read.
    """
    content, path = (picture or {}).get('bytes'), (picture or {}).get('path')
    if content:
        return content
    if not path:
        raise ValueError('the row has no picture')
    try:
        return read_image(path)
    except (OSError, ValueError) as error:
        raise ValueError(f'{path}: {reason_of(error)}') from error
