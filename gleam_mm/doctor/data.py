"""Data: whether they are there, fit the model and each other, and can be read."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from torch import Tensor

from gleam_mm.config.image_size import image_size
from gleam_mm.datasets import CSVDataset, CustomDataset, HuggingFaceDataset, TarDataset
from gleam_mm.datasets.held_out import HeldOut
from gleam_mm.doctor.findings import Findings
from gleam_mm.engine import launch
from gleam_mm.engine.classes import (
    TRAINED,
    check_dataset,
    compare_classes,
    doubts,
    fill_classes,
    names_of,
    parts_of,
)
from gleam_mm.registry import DATASETS, scope_of

SPLITS = ('train', 'val', 'test')

_UNEVEN = 10
"""How many times as many images one class may have as another."""

_MOST_FILES = 50_000
"""Of more files, names alone are compared."""


_OWN_TEST: dict[type[HeldOut], tuple[str, str]] = {
    CSVDataset: ('lines with test in a column split', 'split=test'),
    HuggingFaceDataset: ('a split test', 'split=test'),
    TarDataset: ('files test-*.tar', "shards='test-*.tar'"),
    CustomDataset: ('a folder test beside train', 'data_prefix=test'),
}
"""What the pictures of a test are in, and the option that reads it, by the kind of dataset."""


class _Picture(NamedTuple):
    """What tells a picture from others: its path, or the digest of its pixels in memory."""

    key: str
    is_file: bool


def check(cfg: Config, findings: Findings, pictures: int) -> tuple[Any, Any]:
    """Examines the data of a config.

    Args:
        cfg: The whole config; the number of classes is filled in.
        findings: Where findings go.
        pictures: How many pictures of each split are read.

    Returns:
        The training dataset, and one of its samples; None where there is none.
    """
    if cfg.get('train_dataloader') is None:
        findings.error('train', 'the config has no train_dataloader')
    datasets: dict[str, Any] = {}
    with findings.listening('data'):
        with findings.gathered('classes'), launch.naming_data_root():
            fill_classes(cfg)
        for split in SPLITS:
            config = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
            if config is None:
                continue
            with findings.gathered(split), launch.naming_data_root(), scope_of(cfg):
                datasets[split] = DATASETS.build(config)
    sample = None
    for split, dataset in datasets.items():
        found = _check_split(cfg, split, dataset, datasets.get('train'), findings, pictures)
        sample = found if split == 'train' else sample
    with findings.gathered('splits'):
        _check_overlaps(datasets, findings)
    return datasets.get('train'), sample


def _check_split(
    cfg: Config,
    split: str,
    dataset: Any,
    train: Any,
    findings: Findings,
    pictures: int,
) -> Any:
    """Examines a split, and returns one of its samples."""
    where, outputs = f'{split}_dataloader', (cfg.model.get('head') or {}).get('num_classes')
    with findings.gathered(split):
        counts = check_dataset(dataset, outputs, where)
        if train is not None and train is not dataset:
            compare_classes(names_of(train), dataset, TRAINED, where)
        _tell_classes(split, dataset, counts, findings)
        return _check_pictures(cfg, split, dataset, findings, pictures)
    return None


def _tell_classes(split: str, dataset: Any, counts: Counter[int], findings: Findings) -> None:
    """Tells how many images there are, in all and of each class."""
    if not counts:
        findings.ok(split, f'{len(dataset):,} images')
        return
    names = names_of(dataset) or tuple(map(str, sorted(counts)))
    few, many = min(counts.values()), max(counts.values())
    findings.ok(
        split,
        f'{len(dataset):,} images of {len(counts)} class{"es" if len(counts) > 1 else ""}, '
        + (f'{few:,} to {many:,} of each' if few < many else f'{few:,} of each'),
    )
    if split == 'train':
        for doubt, change in doubts(names, counts):
            findings.warning(split, doubt, change)
    if split == 'train' and many > _UNEVEN * few:
        rarest = min(counts, key=counts.__getitem__)
        findings.warning(
            split,
            f'classes are uneven: {_name(names, rarest)} has {few:,} images, others up to {many:,}',
            "wrap it, train_dataloader.dataset=dict(type='ClassBalancedDataset', "
            'oversample_thr=..., dataset=...), and judge by the accuracy of each class',
        )


def _check_pictures(
    cfg: Config, split: str, dataset: Any, findings: Findings, pictures: int
) -> Any:
    """Reads a sample of pictures, through the pipeline, and returns the first one."""
    number = min(pictures, len(dataset))
    samples, bad = [], []
    for index in dict.fromkeys(np.linspace(0, len(dataset) - 1, number).round().astype(int)):
        try:
            samples.append(dataset[int(index)])
        except Exception as error:  # decoders raise nearly anything
            bad.append(' '.join(str(error).split()))
    if bad:
        findings.error(
            split,
            f'{len(bad)} of {number} pictures that were looked at cannot be read: {bad[0]}',
            f'replace them, or {split}_dataloader.dataset.skip_unreadable=N leaves up to N out',
        )
    elif number:
        findings.ok(split, f'{number} pictures read')
    if not samples:
        return None
    _check_sizes(cfg, split, samples, findings)
    return samples[0]


def _check_sizes(cfg: Config, split: str, samples: Sequence[Any], findings: Findings) -> None:
    expected = image_size(cfg.model.backbone)
    shapes = [
        tuple(sample['inputs'].shape[-2:])
        for sample in samples
        if isinstance(sample, Mapping) and isinstance(sample.get('inputs'), Tensor)
    ]
    other = next((shape for shape in shapes if shape != expected), None)
    if other is not None:
        findings.warning(
            split,
            f'images of {other[0]} x {other[1]} enter a backbone for {expected[0]} x {expected[1]}',
            "sizes of None in the pipeline's transforms follow the backbone",
        )
    own = [sample['data_samples'].get('ori_shape') for sample in samples if shapes]
    sides = sorted(min(shape[:2]) for shape in own if shape)
    if sides and 2 * sides[len(sides) // 2] <= min(expected):
        findings.warning(
            split,
            f'pictures are small: half of them have {sides[len(sides) // 2]} pixels or fewer on '
            f'their short side and are enlarged to {min(expected)}',
            'a backbone for smaller images costs less and may see as much',
        )


# What splits have in common -----------------------------------------------------------------------


def _check_overlaps(datasets: Mapping[str, Any], findings: Findings) -> None:
    """Looks for pictures of the training among those of the other splits, and of val in test."""
    pictures = {split: _pictures(dataset) for split, dataset in datasets.items()}
    few = sum(map(len, datasets.values())) <= _MOST_FILES
    others = [split for split in datasets if split != 'train']
    if 'train' in datasets and others:
        train = pictures['train']
        found = [
            _check_trained_on(split, pictures[split], train, few, findings) for split in others
        ]
        if not any(found):
            findings.ok('splits', f'no picture of {" or ".join(others)} is trained on')
    if {'val', 'test'} <= datasets.keys():
        _check_test(datasets['test'], pictures['test'], pictures['val'], few, findings)


def _check_trained_on(
    split: str, own: set[_Picture], train: set[_Picture], few: bool, findings: Findings
) -> bool:
    """Whether pictures of a split, or copies of them where files are few, are trained on."""
    if same := own & train:
        first = min(same).key if min(same).is_file else 'pixel by pixel'
        findings.error(
            split,
            f'{len(same):,} of its pictures are trained on as well: {first}',
            'take them out of one of both, or let hold_out=0.2 split the training data',
        )
        return True
    if pairs := _copies(own, train) if few else []:
        one, other = pairs[0]
        findings.warning(
            split,
            f'{len(pairs):,} of its files are copies of files that are trained on: {one} is '
            f'{other}',
            'remove the copies',
        )
        return True
    return False


def _check_test(
    dataset: Any, own: set[_Picture], val: set[_Picture], few: bool, findings: Findings
) -> None:
    """Tells how many pictures of the test, or copies of them, are those of val."""
    same = len(own & val) or (len(_copies(own, val)) if few else 0)
    if not same:
        findings.ok('splits', 'val and test have no picture in common')
        return
    findings.warning(
        'test',
        f'{same:,} of its {len(own):,} pictures are those of val: where options are chosen by '
        'val, their accuracy is too high',
        _own_test(dataset),
    )


def _own_test(dataset: Any) -> str:
    """How a dataset gets test pictures of its own."""
    part = next(parts_of(dataset), None)
    for kind, (what, option) in _OWN_TEST.items():
        if isinstance(part, kind):
            or_by = '' if part.takes_held_out else f', or test_dataloader.dataset.{option}'
            return f'give it pictures of its own: {what}, which --data reads{or_by}'
    return 'give it pictures of its own, by test_dataloader.dataset'


def _infos(dataset: Any) -> list[dict[str, Any]]:
    return [part.get_data_info(i) for part in parts_of(dataset) for i in range(len(part))]


def _pictures(dataset: Any) -> set[_Picture]:
    found = set()
    for info in _infos(dataset):
        if path := info.get('img_path'):
            remote = '://' in path
            found.add(_Picture(path if remote else str(Path(path).absolute()), not remote))
        elif isinstance(pixels := info.get('img'), np.ndarray):
            found.add(_Picture(hashlib.sha256(pixels.tobytes()).hexdigest(), False))
    return found


def _copies(own: set[_Picture], train: set[_Picture]) -> list[tuple[str, str]]:
    """Files whose content is that of a file that is trained on, with that file."""
    by_size: dict[int, list[str]] = {}
    for picture in train:
        if (size := _size(picture)) is not None:
            by_size.setdefault(size, []).append(picture.key)
    pairs = []
    digests: dict[str, bytes] = {}
    for picture in sorted(own):
        for other in by_size.get(_size(picture) or -1, ()):
            for path in (picture.key, other):
                digests.setdefault(path, hashlib.sha256(Path(path).read_bytes()).digest())
            if digests[picture.key] == digests[other]:
                pairs.append((picture.key, other))
                break
    return pairs


def _size(picture: _Picture) -> int | None:
    try:
        return os.stat(picture.key).st_size if picture.is_file else None  # noqa: PTH116
    except OSError:
        return None


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)
