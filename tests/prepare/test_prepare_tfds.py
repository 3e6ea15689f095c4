"""TensorFlow Datasets copies are read as TensorFlow reads them.

``tfds_copies.zip`` holds small copies that tensorflow-datasets 4.9.10 wrote, with the features of
the real ones, and what it read from them: a checksum of the pixels and the labels that the formulas
of VTAB's code gave, in TensorFlow, in order.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gleam_mm.datasets.vtab import VTAB_TASKS
from gleam_mm.prepare.build import build
from gleam_mm.prepare.origins import tfds_slices
from gleam_mm.prepare.plan import plan_from_tfds, tfds_folder
from gleam_mm.prepare.tfrecord import Slice, TFDSCopy, parse_example

# Sizes of the originals' splits.
SIZES = {
    'cifar': {'train': 50000, 'test': 10000},
    'caltech101': {'train': 3059, 'test': 6084},
    'dtd': {'train': 1880, 'validation': 1880, 'test': 1880},
    'oxford_flowers102': {'train': 1020, 'validation': 1020, 'test': 6149},
    'oxford_iiit_pet': {'train': 3680, 'test': 3669},
    'svhn': {'train': 73257, 'test': 26032, 'extra': 531131},
    'sun397': {'train': 76128, 'validation': 10875, 'test': 21750},
    'patch_camelyon': {'train': 262144, 'validation': 32768, 'test': 32768},
    'eurosat': {'train': 27000},
    'resisc45': {'train': 31500},
    'diabetic_retinopathy': {'train': 35126, 'validation': 10906, 'test': 42670},
    'clevr_count': {'train': 70000, 'validation': 15000, 'test': 15000},
    'clevr_dist': {'train': 70000, 'validation': 15000, 'test': 15000},
    'dmlab': {'train': 65550, 'validation': 22628, 'test': 22735},
    'kitti': {'train': 6347, 'validation': 423, 'test': 711},
    'dsprites_loc': {'train': 737280},
    'dsprites_ori': {'train': 737280},
    'smallnorb_azi': {'train': 24300, 'test': 24300},
    'smallnorb_ele': {'train': 24300, 'test': 24300},
}


@pytest.fixture(scope='module')
def copies(tmp_path_factory):
    """The data folder of TFDS, and what TensorFlow read from it."""
    root = tmp_path_factory.mktemp('tfds')
    with zipfile.ZipFile(Path(__file__).with_name('tfds_copies.zip')) as file:
        file.extractall(root)
    return root, json.loads((root / 'expected.json').read_text())


def checksum(file):
    return int(np.asarray(Image.open(file)).astype(np.int64).ravel() @ np.arange(1, 13))


@pytest.mark.parametrize(
    ('task', 'split', 'expected', 'column'),
    [
        ('kitti', 'train800val200', 'kitti|train[:60]+validation[:12]', 0),
        ('kitti', 'test', 'kitti|test', 0),
        ('clevr_count', 'train800val200', 'clevr|train[:40]+train[36:40]', 0),
        ('clevr_dist', 'train800val200', 'clevr|train[:40]+train[36:40]', 1),
        ('clevr_dist', 'test', 'clevr|validation', 1),
        ('svhn', 'train800val200', 'svhn_cropped|train[:400]+train[360:400]', 0),  # 19 shards
        ('svhn', 'test', 'svhn_cropped|test', 0),
    ],
)
def test_images_labels_and_order_are_tensorflows(task, split, expected, column, copies, tmp_path):
    root, reference = copies
    build(plan_from_tfds(task, root), tmp_path)
    lines = [line.split() for line in (tmp_path / task / f'{split}.txt').read_text().splitlines()]
    ours = [[checksum(tmp_path / task / path), int(label)] for path, label in lines]
    assert ours == [[pixels, labels[column]] for pixels, labels in reference[expected]]


@pytest.mark.parametrize('task', VTAB_TASKS)
def test_splits_have_the_sizes_of_vtab(task):
    class Copy:
        folder = Path('copy')

        def size(self, split):
            return SIZES[task][split]

    slices = tfds_slices(task, Copy())
    sizes = {split: sum(part.stop - part.start for part in s) for split, s in slices.items()}
    assert sizes == {
        'train800': 800,
        'val200': 200,
        'train800val200': 1000,
        'test': VTAB_TASKS[task].test_size,
    }
    taken = set()
    for split in ('train800', 'val200', 'test'):
        for part in slices[split]:
            images = {(part.split, index) for index in range(part.start, part.stop)}
            assert not taken & images
            taken |= images


def test_a_copy_that_is_not_vtabs_is_not_called_official(copies):
    plan = plan_from_tfds('kitti', copies[0])
    assert not plan.manifest['official']
    assert plan.manifest['choice'] == 'tfds-unofficial'
    assert 'test differ' in plan.manifest['note']


def test_the_version_of_vtab_is_preferred(copies, tmp_path):
    (tmp_path / 'kitti').mkdir()
    for version in ('3.1.0', '3.2.0', '4.0.0'):
        folder = tmp_path / 'kitti' / version
        folder.mkdir()
        (folder / 'dataset_info.json').write_text('{}')
    assert tfds_folder('kitti', tmp_path).name == '3.2.0'
    with pytest.raises(FileNotFoundError, match='there is no cifar100/<version>'):
        tfds_folder('cifar', tmp_path)


def test_a_broken_copy_is_named(copies, tmp_path):
    source = copies[0] / 'kitti' / '3.2.0'
    folder = tmp_path / 'kitti' / '3.2.0'
    folder.mkdir(parents=True)
    for file in source.iterdir():
        data = file.read_bytes()
        (folder / file.name).write_bytes(data[:-40] if 'train' in file.name else data)
    with pytest.raises(OSError, match=r'kitti-train.tfrecord-0000\d-of-00003: ends in record'):
        build(plan_from_tfds('kitti', tmp_path), tmp_path / 'out')
    assert not (tmp_path / 'out' / 'kitti' / 'train800.txt').exists()
    with pytest.raises(ValueError, match=r"has no split 'extra', only train, validation, test"):
        TFDSCopy(folder).size('extra')
    (folder / 'dataset_info.json').write_text('[]')
    with pytest.raises(ValueError, match=r'dataset_info.json: not the description'):
        TFDSCopy(folder)


def test_array_records_are_refused(copies, tmp_path):
    info = json.loads((copies[0] / 'kitti/3.2.0/dataset_info.json').read_text())
    info['fileFormat'] = 'array_record'
    (tmp_path / 'dataset_info.json').write_text(json.dumps(info))
    with pytest.raises(ValueError, match='array_record files, only tfrecord can be read'):
        TFDSCopy(tmp_path)


def message(number, data):
    """A length-delimited field of a Protocol Buffers message of less than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


def test_negative_integers_and_both_encodings_are_parsed():
    minus_one = b'\xff' * 9 + b'\x01'
    features = {
        b'packed': message(3, message(1, minus_one + b'\xac\x02')),
        b'single': message(3, b'\x08\x07\x08\x09'),
        b'floats': message(2, message(1, np.float32([0.5, -2]).tobytes())),
        b'nothing': b'',
    }
    entries = [message(1, message(1, name) + message(2, value)) for name, value in features.items()]
    example = parse_example(message(1, b''.join(entries)))
    assert example['packed'].tolist() == [-1, 300]
    assert example['single'].tolist() == [7, 9]
    assert example['floats'].tolist() == [0.5, -2.0]
    assert example['nothing'] == []
    with pytest.raises(ValueError, match=r'no tf\.train\.Example'):
        parse_example(b'\x0a\x7f\x00')


def test_slices_cross_files(copies):
    copy = TFDSCopy(copies[0] / 'kitti' / '3.2.0')
    names = [name for name, _ in copy.read([Slice('train', 18, 22)])]
    assert sorted(names) == [f'train[{index}]' for index in range(18, 22)]
