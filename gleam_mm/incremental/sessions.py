"""Sessions of classes: what there is to learn in each, and what has been seen by then."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Subset

from gleam_mm.config.datasets import datasets_in, prepared_as
from gleam_mm.engine.classes import TRAINED, check_dataset, compare_classes, doubts, names_of
from gleam_mm.messages import listed
from gleam_mm.registry import DATASETS


class Session(NamedTuple):
    """One session.

    Attributes:
        index: Its number, from 0 on.
        classes: The classes that it brings.
        seen: All classes so far, its own among them.
        train: Its training images, shuffled.
        still: All of them, in their order and through the pipeline of the test, which changes
            nothing at random.
        test: The test images of all classes so far.
    """

    index: int
    classes: list[int]
    seen: list[int]
    train: DataLoader
    still: DataLoader
    test: DataLoader


class Sessions:
    """Splits the classes of a config's training and test data into sessions.

    The classes are shuffled, and come in sessions of equal sizes or, where that does not go, the
    first ones with one class more. Only a session's own training images are ever read in it.

    Args:
        cfg: A whole config.
        number: The number of sessions.
        seed: Of the order of the classes.

    Raises:
        ValueError: There would be sessions of fewer than two classes, a class has no training
            image or the first session no test image, or the test data have other classes.
    """

    def __init__(self, cfg: Config, number: int, seed: int = 1993) -> None:
        self.cfg = cfg
        self.seed = cfg.get('randomness', {}).get('seed') or 0
        train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
        self._train, self._test = DATASETS.build(train), DATASETS.build(test)
        self._still = DATASETS.build(_still(train, test))
        outputs = (cfg.model.get('head') or {}).get('num_classes')
        counts = check_dataset(self._train, outputs, 'train_dataloader')
        for doubt, change in doubts(names_of(self._train), counts):  # no prototype without images
            raise ValueError(f'{TRAINED}: {doubt}; {change}')
        tested = check_dataset(self._test, outputs, 'test_dataloader')
        compare_classes(names_of(self._train), self._test, TRAINED, 'test_dataloader')
        self.names = list(self._train.metainfo['classes'])
        if len(self.names) < 2 * number:
            raise ValueError(
                f'sessions={number}: {len(self.names)} classes make sessions of fewer than two; '
                f'choose {len(self.names) // 2} at most'
            )
        order = np.random.default_rng(seed).permutation(len(self.names))
        self.classes = [part.tolist() for part in np.array_split(order, number)]
        if not any(tested[label] for label in self.classes[0]):
            first = [self.names[label] for label in self.classes[0]]
            raise ValueError(
                f'the dataset of test_dataloader has no image of {listed(first)}, the classes of '
                'the first session: add some, or choose another seed'
            )

    def __iter__(self) -> Iterator[Session]:
        """The sessions, one after the other."""
        train, test = _labels(self._train), _labels(self._test)
        seen: list[int] = []
        for index, classes in enumerate(self.classes):
            seen = [*seen, *classes]
            own = _of(train, classes)
            yield Session(
                index,
                classes,
                seen,
                self._loader('train_dataloader', self._train, own, index),
                self._loader('test_dataloader', self._still, own, index),
                self._loader('test_dataloader', self._test, _of(test, seen), index),
            )

    def _loader(
        self, key: str, dataset: BaseDataset, chosen: Sequence[int], index: int
    ) -> DataLoader:
        training = key == 'train_dataloader'
        # MMEngine's get_subset copies with a memo of all calls: objects that are gone come back.
        loader: dict[str, Any] = {**self.cfg[key], 'dataset': Subset(dataset, chosen)}
        loader['sampler'] = dict(type='DefaultSampler', shuffle=training)
        if not training:
            loader.update(drop_last=False, num_batch_per_epoch=None)
        return Runner.build_dataloader(loader, seed=self.seed + index)


def _still(train: Any, test: Any) -> Any:
    """The config of the training images without what changes them at random.

    That is of the datasets within wrappers: most of these have no ``test_mode``, and that of
    ``KFoldDataset`` takes other images.
    """
    still = prepared_as(train, test)
    for dataset in datasets_in(still):
        if not {'dataset', 'datasets'} & dataset.keys():
            dataset['test_mode'] = True
    return still


def _labels(dataset: BaseDataset) -> np.ndarray:
    return np.array([dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))])


def _of(labels: np.ndarray, classes: Sequence[int]) -> list[int]:
    return np.flatnonzero(np.isin(labels, classes)).tolist()
