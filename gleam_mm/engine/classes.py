"""The classes of a model and of its datasets are the same: filled in, and compared by name."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from mmengine import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import Dataset

from gleam_mm.checkpoint import CheckpointError, classes_of, classes_of_meta
from gleam_mm.config.datasets import datasets_in
from gleam_mm.datasets import CustomDataset
from gleam_mm.engine.dist import unwrapped
from gleam_mm.messages import listed
from gleam_mm.registry import DATASETS, HOOKS, registered, scope_of

Names = tuple[str, ...]

TRAINED = 'the dataset of train_dataloader'


def fill_classes(cfg: Config, names: Names | None = None) -> None:
    """Fills in the number of classes of the head, and the names of those that folders stand for.

    Folders of validation and test data that no ``classes`` name get those of the training data, so
    that they may lack some, and have no others.

    Args:
        cfg: The whole config; changed in place.
        names: The classes, where they are known. By default the training dataset is built and
            asked, if there is anything to fill in.

    Raises:
        ValueError: The training dataset has no class names.
    """
    folders = list(_unnamed_folders(cfg))
    if names is None and folders and cfg.get('train_dataloader') is not None:
        names = class_names(cfg)
    fill_num_classes(cfg, names)
    if names is not None:
        for dataset in folders:
            dataset.update(classes=list(names), only_classes=True)


def fill_num_classes(cfg: Config, names: Names | None = None) -> None:
    """Fills ``model.head.num_classes`` where it is None.

    The number comes from ``data_preprocessor.num_classes`` or, where that is None as well, from
    the class names of the training dataset, which is built for that. Both keys are set.

    Args:
        cfg: The whole config; changed in place.
        names: The classes, where they are known.

    Raises:
        ValueError: The training dataset has no class names either.
    """
    head = cfg.model.get('head')
    if head is None or 'num_classes' not in head:
        return
    preprocessor = cfg.get('data_preprocessor') or {}
    number = head.num_classes or preprocessor.get('num_classes')
    if number is None:
        number = len(names or class_names(cfg))
    head.num_classes = number
    if 'num_classes' in preprocessor:
        cfg.data_preprocessor.num_classes = number


def class_names(cfg: Config) -> Names:
    """The classes of the training dataset, or else of the test dataset, which is built for that.

    Raises:
        ValueError: There is no such dataset, or it has no class names.
    """
    dataloader = cfg.get('train_dataloader') or cfg.get('test_dataloader')
    if dataloader is None:
        raise ValueError(
            'model.head.num_classes is None and the config has neither a train_dataloader nor a '
            'test_dataloader to read the classes from; set model.head.num_classes'
        )
    with scope_of(cfg):
        dataset = DATASETS.build(dataloader.dataset)
    if not (names := names_of(dataset)):
        raise ValueError(
            f'model.head.num_classes is None and the dataset {type(dataset).__name__} has no '
            'class names; set model.head.num_classes, or `classes` of the dataset'
        )
    return names


def classes_in(checkpoint: str | None) -> Names | None:
    """The classes that a local checkpoint or adapter file was trained with, if it says so."""
    try:
        return classes_of(str(checkpoint))
    except (CheckpointError, OSError):  # told where it is loaded
        return None


def _unnamed_folders(cfg: Config) -> Iterator[Any]:
    """Configs of validation and test datasets that are folders of classes without names."""
    for key in ('val_dataloader', 'test_dataloader'):
        for dataset in datasets_in((cfg.get(key) or {}).get('dataset')):
            kind = dataset.get('type')
            found = registered(DATASETS, kind) if isinstance(kind, str) else kind
            named = (
                *(dataset.get('classes'), dataset.get('ann_file')),
                (dataset.get('metainfo') or {}).get('classes'),
            )
            if found is CustomDataset and not any(named) and dataset.get('with_label', True):
                yield dataset


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Stops a run whose head or checkpoint has other classes than its datasets.

    MMPretrain would train it: too large a head passes unnoticed, too small a one fails on the
    first label beyond it, and classes in another order are scored by the wrong labels. Labels are
    compared as well, since a dataset may list others than it has names for.
    """

    priority = 'VERY_HIGH'
    _labels_fit: Any = None  # the dataset whose labels were checked last: not at every epoch

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compares the training dataset with the classes of a checkpoint that is resumed."""
        if runner._resume:
            ours = classes_of_meta(checkpoint.get('meta'))
            dataset = runner.train_dataloader.dataset
            compare_classes(ours, dataset, 'the checkpoint', 'train_dataloader')

    def before_train(self, runner: Runner) -> None:
        """Compares the head with the training dataset, and that with the validation dataset.

        The validation dataset is compared now, so that a mistake does not cost an epoch.
        """
        train = runner.train_dataloader.dataset
        counts = self._check(runner, train, 'train_dataloader')
        for doubt, change in doubts(names_of(train), counts):
            message = f'the dataset of train_dataloader: {doubt}; {change}'
            print_log(message, logger='current', level=logging.WARNING)
        if runner.val_loop is not None:
            validation = runner.val_dataloader.dataset
            self._check(runner, validation, 'val_dataloader')
            compare_classes(names_of(train), validation, TRAINED, 'val_dataloader')

    def before_val(self, runner: Runner) -> None:
        """Compares the head with the validation dataset."""
        self._check(runner, runner.val_dataloader.dataset, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Compares head, training and checkpoint with the test dataset."""
        dataset = runner.test_dataloader.dataset
        self._check(runner, dataset, 'test_dataloader')
        if isinstance(getattr(runner, '_train_loop', None), BaseLoop):
            compare_classes(
                names_of(runner.train_dataloader.dataset), dataset, TRAINED, 'test_dataloader'
            )
        else:
            ours = getattr(runner, 'trained_classes', None)
            compare_classes(ours, dataset, 'the checkpoint', 'test_dataloader')

    def _check(self, runner: Runner, dataset: BaseDataset, where: str) -> Counter[int]:
        outputs = outputs_of(unwrapped(runner.model))
        unseen = self._labels_fit != (dataset, outputs)
        counts = check_dataset(dataset, outputs, where, labels=unseen)
        self._labels_fit = dataset, outputs
        return counts


def outputs_of(model: Any) -> int | None:
    """How many classes the head of a model tells, if it tells classes."""
    return getattr(getattr(model, 'head', None), 'num_classes', None)


def check_dataset(
    dataset: Any, outputs: int | None, where: str, labels: bool = True
) -> Counter[int]:
    """Compares a dataset with the head.

    Args:
        dataset: The dataset, or one that wraps others.
        outputs: How many classes the head tells, where it tells classes.
        where: The key of its dataloader, for messages.
        labels: Whether each label is looked at as well.

    Returns:
        How many images each class has; empty where that was not looked at, or an image has not one
        class.

    Raises:
        ValueError: It has no images, other classes than the head, or a label that is none of them.
    """
    if hasattr(dataset, '__len__') and not len(dataset):
        raise ValueError(f'{where}.dataset has no images')
    classes = names_of(dataset)
    if outputs is not None and classes and outputs != len(classes):
        advice = (
            f'set model.head.num_classes={len(classes)}, or None to read it from the dataset'
            if where == 'train_dataloader'
            else f'data without some of the classes need the names of all, in {where}.dataset'
            '.classes; data with others are none of this model'
        )
        raise ValueError(
            f'model.head.num_classes is {outputs}, but the dataset of {where} has '
            f'{len(classes)} classes ({listed(classes)}): {advice}'
        )
    number = outputs or len(classes or ())
    if not (number and labels):
        return Counter()
    found = [_checked_labels(part, number, where) for part in parts_of(dataset)]
    return sum(found, Counter()) if all(found) else Counter()


def _checked_labels(dataset: BaseDataset, number: int, where: str) -> Counter[int]:
    counts: Counter[int] = Counter()
    for index in range(len(dataset)):
        data = dataset.get_data_info(index)
        label = data.get('gt_label')
        if not isinstance(label, (int, np.integer, list, tuple, np.ndarray)):
            return Counter()  # no labels, or of a kind that is not known
        for one in np.ravel(label):  # of several labels each
            if not 0 <= one < number:
                raise ValueError(
                    f'{where}: label {one} of {data.get("img_path", f"image {index}")} is out '
                    f'of range; there are {number} classes, 0 to {number - 1}'
                )
        if isinstance(label, (int, np.integer)):
            counts[int(label)] += 1
    return counts if counts.total() == len(dataset) else Counter()


def doubts(names: Names | None, counts: Counter[int]) -> Iterator[tuple[str, str]]:
    """What a training dataset has that can be trained on, but to no purpose.

    Args:
        names: Its classes, where they have names.
        counts: How many images each has, of :func:`check_dataset`. Of none there is nothing to say.

    Yields:
        What it is, and what to do about it.
    """
    if not counts:
        return
    names = names or tuple(map(str, sorted(counts)))
    if len(names) == 1:
        yield (
            f'all images are of one class, {names[0]}, so that every model is right about all',
            'give data of several classes: where these are the folders inside of '
            f'{names[0]}, give that folder itself',
        )
    lacking = [name for label, name in enumerate(names) if not counts[label]]
    if lacking:
        yield (
            f'{len(lacking)} of {len(names)} classes have no image: {listed(lacking)}',
            'add images of them, hold fewer out where hold_out has taken the only one, or take '
            'them out of `classes`',
        )


def check_test_data(runner: Runner) -> None:
    """Looks at the test dataset before a training that it follows, for it may not be there.

    Raises:
        FileNotFoundError: Its files are not there.
        ValueError: It has no images, or other classes than the training.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckClassesHook) and runner.test_loop is not None:
            runner.train_dataloader  # noqa: B018 - builds the loop
            hook.before_test(runner)


def compare_classes(ours: Names | None, dataset: Any, whose: str, where: str) -> None:
    """Compares the classes of a dataset, and their order, with others.

    Args:
        ours: The classes of the training, where they are known.
        dataset: The dataset.
        whose: What the classes belong to, for messages.
        where: The key of the dataloader, for messages.

    Raises:
        ValueError: They differ.
    """
    theirs = names_of(dataset)
    if ours and theirs and ours != theirs:
        pairs = enumerate(zip_longest(ours, theirs))
        number, (first, second) = next(pair for pair in pairs if len({*pair[1]}) > 1)
        raise ValueError(
            f'the dataset of {where} has other classes than {whose}: class {number} is '
            f'{second!r}, and {first!r} there, so that labels would be shifted; use data of the '
            f'same classes, or say their order by {where}.dataset.classes'
        )


def names_of(dataset: Any) -> Names | None:
    """The classes of a dataset, where it names them."""
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return tuple(map(str, names)) if isinstance(names, Sequence) and names else None


def parts_of(dataset: Dataset) -> Iterator[BaseDataset]:
    """The datasets behind wrappers, such as those that repeat, concatenate or select."""
    if isinstance(dataset, BaseDataset):
        yield dataset
        return
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from parts_of(part)
