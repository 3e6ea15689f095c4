"""MiniVTAB: sizes, disjointness, determinism and shares of its splits."""

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gleam_mm.minivtab import MiniVTAB
from gleam_mm.registry import DATASETS

SIZES = {'train800': 800, 'val200': 200, 'train800val200': 1000, 'test': 797}


@pytest.fixture(scope='module')
def splits():
    return {split: MiniVTAB(task='digits', split=split) for split in SIZES}


def _images(dataset):
    """Identifies images by content: scikit-learn's digits are all different."""
    return {dataset.get_data_info(i)['img'].tobytes() for i in range(len(dataset))}


def test_sizes_and_items(splits):
    for split, size in SIZES.items():
        assert len(splits[split]) == size
    info = splits['test'].get_data_info(0)
    assert info['img'].shape == (32, 32, 3)
    assert info['img'].dtype == np.uint8
    assert isinstance(info['gt_label'], int)
    assert splits['test'].CLASSES[3] == 'three'


def test_splits_are_disjoint_and_complete(splits):
    train, val, both, test = (_images(splits[split]) for split in SIZES)
    assert train | val == both
    assert not train & val
    assert not both & test
    assert len(both | test) == 1797


def test_splits_hold_every_class_in_proportion(splits):
    whole = np.bincount(load_digits().target) / 1797
    for split, size in SIZES.items():
        counts = np.bincount(splits[split].get_gt_labels(), minlength=10)
        assert np.abs(counts - whole * size).max() <= 1.5


def test_images_belong_to_their_labels(splits):
    """Averaging the enlarged image over 4 x 4 pixels comes close to the original one."""
    originals = {}
    data = load_digits()
    for image, label in zip(data.images, data.target, strict=True):
        originals.setdefault(int(label), []).append(image)
    for i in range(0, 797, 97):
        info = splits['test'].get_data_info(i)
        small = info['img'][..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) * 16 / 255
        errors = {
            label: min(np.abs(small - image).mean() for image in images)
            for label, images in originals.items()
        }
        assert min(errors, key=errors.get) == info['gt_label']
        assert errors[info['gt_label']] < 1.0


def test_arrays_are_the_same_on_every_machine(splits):
    digest = hashlib.sha256()
    for split in SIZES:
        for i in range(len(splits[split])):
            info = splits[split].get_data_info(i)
            digest.update(info['img'].tobytes() + bytes([info['gt_label']]))
    assert digest.hexdigest() == '96a8464f7a4d7e74ee88ed51e924a3b1b1b5a1d982b824e16936896596896155'


def test_image_size_is_an_option():
    dataset = MiniVTAB(task='digits', split='val200', img_size=48)
    assert dataset.get_data_info(0)['img'].shape == (48, 48, 3)
    with pytest.raises(ValueError, match='img_size must be at least 8'):
        MiniVTAB(img_size=4)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(task='digit'), "no task 'digit' (did you mean 'digits' or "),
        (dict(split='train80'), "no split 'train80' (did you mean .*'train800'"),
        (dict(split='x'), "no split 'x'; it has train800, val200, train800val200, test"),
    ],
)
def test_unknown_names_are_told_with_the_closest(kwargs, message):
    with pytest.raises(ValueError, match=message.replace('(', r'\(')):
        MiniVTAB(**kwargs)


def test_pipeline_and_registry():
    dataset = DATASETS.build(
        dict(type='MiniVTAB', task='digits', split='val200', pipeline=[dict(type='PackInputs')])
    )
    item = dataset[5]
    assert item['inputs'].shape == (3, 32, 32)
    assert item['data_samples'].gt_label.item() == dataset.get_data_info(5)['gt_label']
