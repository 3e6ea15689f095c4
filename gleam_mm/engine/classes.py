"""The head has as many outputs as the dataset has classes: filled in, and checked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from gleam_mm.engine.dist import unwrapped
from gleam_mm.registry import DATASETS, HOOKS, scope_of


def fill_num_classes(cfg: Config) -> None:
    """Fills ``model.head.num_classes`` where it is None.

    The number comes from ``data_preprocessor.num_classes`` or, where that is None as well, from
    the class names of the training dataset, which is built for that. Both keys are set.

    Args:
        cfg: The whole config; changed in place.

    Raises:
        ValueError: The training dataset has no class names either.
    """
    head = cfg.model.get('head')
    if head is None or 'num_classes' not in head:
        return
    preprocessor = cfg.get('data_preprocessor') or {}
    number = head.num_classes or preprocessor.get('num_classes')
    if number is None:
        number = len(_class_names(cfg))
    head.num_classes = number
    if 'num_classes' in preprocessor:
        cfg.data_preprocessor.num_classes = number


def _class_names(cfg: Config) -> tuple[str, ...]:
    dataloader = cfg.get('train_dataloader') or cfg.get('test_dataloader')
    if dataloader is None:
        raise ValueError(
            'model.head.num_classes is None and the config has neither a train_dataloader nor a '
            'test_dataloader to read the classes from; set model.head.num_classes'
        )
    with scope_of(cfg):
        dataset = DATASETS.build(dataloader.dataset)
    classes = dataset.metainfo.get('classes')
    if not classes:
        raise ValueError(
            f'model.head.num_classes is None and the dataset {type(dataset).__name__} has no '
            'class names; set model.head.num_classes, or `classes` of the dataset'
        )
    return classes


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Stops a run whose head has another number of classes than its dataset.

    MMPretrain would train it: too large a head passes unnoticed, too small a one fails on the
    first label beyond it. Labels are compared as well, since a dataset may list others than it has
    names for.
    """

    priority = 'VERY_HIGH'
    _labels_fit = None  # the dataset whose labels were checked last: not again at every epoch

    def before_train(self, runner: Runner) -> None:
        """Compares the head with the training dataset, and that with the validation dataset.

        The validation dataset is compared now, so that a mistake does not cost an epoch.
        """
        train = runner.train_dataloader.dataset
        self._check(runner, train, 'train_dataloader')
        if runner.val_loop is None:
            return
        validation = runner.val_dataloader.dataset
        self._check(runner, validation, 'val_dataloader')
        names: list[Any] = [
            getattr(dataset, 'metainfo', {}).get('classes') for dataset in (train, validation)
        ]
        if all(names) and tuple(names[0]) != tuple(names[1]):
            ours, theirs = next(pair for pair in zip(*names, strict=True) if pair[0] != pair[1])
            raise ValueError(
                'the datasets of train_dataloader and val_dataloader have other classes: where the '
                f'first has {ours!r}, the second has {theirs!r}'
            )

    def before_val(self, runner: Runner) -> None:
        """Compares the head with the validation dataset."""
        self._check(runner, runner.val_dataloader.dataset, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Compares the head with the test dataset."""
        self._check(runner, runner.test_dataloader.dataset, 'test_dataloader')

    def _check(self, runner: Runner, dataset: BaseDataset, where: str) -> None:
        model = unwrapped(runner.model)
        outputs = getattr(getattr(model, 'head', None), 'num_classes', None)
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if outputs is not None and classes and outputs != len(classes):
            raise ValueError(
                f'model.head.num_classes is {outputs}, but the dataset of {where} has '
                f'{len(classes)} classes ({", ".join(map(str, classes[:5]))}, ...): set '
                f'model.head.num_classes={len(classes)}, or None to read it from the dataset'
            )
        number = outputs or len(classes or ())
        if number and self._labels_fit != (dataset, number):
            for part in _parts(dataset):
                self._check_labels(part, number, where)
            self._labels_fit = dataset, number

    def _check_labels(self, dataset: BaseDataset, number: int, where: str) -> None:
        for index in range(len(dataset)):
            data = dataset.get_data_info(index)
            label = data.get('gt_label')
            if not isinstance(label, (int, np.integer, list, tuple, np.ndarray)):
                return  # no labels, or of a kind that is not known
            for one in np.ravel(label):  # of several labels each
                if not 0 <= one < number:
                    raise ValueError(
                        f'{where}: label {one} of {data.get("img_path", f"image {index}")} is out '
                        f'of range; there are {number} classes, 0 to {number - 1}'
                    )


def _parts(dataset: Dataset) -> Iterator[BaseDataset]:
    """The datasets behind wrappers, such as those that repeat, concatenate or select."""
    if isinstance(dataset, BaseDataset):
        yield dataset
        return
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from _parts(part)
