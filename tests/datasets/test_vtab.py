"""VTAB-1K is read as the community lays it out."""

import numpy as np
import pytest
from PIL import Image

from gleam_mm.datasets import VTAB1K, VTAB_TASKS

SIZES = {'train800': 8, 'val200': 2, 'train800val200': 10, 'test': 3}


@pytest.fixture
def root(tmp_path):
    """A miniature of the cifar task, in the true layout."""
    task = tmp_path / 'cifar'
    for split, size in SIZES.items():
        folder = task / 'images' / split
        folder.mkdir(parents=True)
        lines = []
        for index in range(size):
            image = np.full((8, 8, 3), index * 10, dtype=np.uint8)
            Image.fromarray(image).save(folder / f'{index:06}.jpg')
            lines.append(f'images/{split}/{index:06}.jpg {index % 100}')
        (task / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    return tmp_path


@pytest.mark.parametrize('split', SIZES)
def test_reads_images_and_labels(split, root):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = VTAB1K('cifar', split, str(root), pipeline=pipeline)
    assert len(dataset) == SIZES[split]
    assert len(dataset.metainfo['classes']) == 100
    item = dataset[1]
    assert item['inputs'].shape == (3, 8, 8)
    assert abs(item['inputs'].float().mean() - 10) < 2
    assert item['data_samples'].gt_label.item() == 1


def test_all_19_tasks_in_three_groups():
    groups = [task.group for task in VTAB_TASKS.values()]
    counts = {group: groups.count(group) for group in groups}
    assert counts == {'natural': 7, 'specialized': 4, 'structured': 8}


def test_mistakes_are_named(root):
    with pytest.raises(ValueError, match=r"unknown VTAB-1K task 'clevr-cnt'; .*clevr_count"):
        VTAB1K('clevr-cnt', 'test', str(root))
    with pytest.raises(ValueError, match="unknown split 'train'; VTAB-1K has: train800, val200"):
        VTAB1K('cifar', 'train', str(root))
    with pytest.raises(FileNotFoundError, match=r'svhn/test.txt does not exist: put VTAB-1K there'):
        VTAB1K('svhn', 'test', str(root))


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('images/test/000000.jpg 100', r'test.txt, line 2: label 100 is out of range; cifar has'),
        ('images/test/000000.jpg -1', 'line 2: label -1 is out of range'),
        ('images/test/000000.jpg cat', 'line 2: expected `<image path> <label>`'),
        ('images/test/000000.jpg', 'line 2: expected `<image path> <label>`'),
    ],
)
def test_bad_lines_are_named(line, message, root):
    (root / 'cifar' / 'test.txt').write_text(f'images/test/000000.jpg 0\n{line}\n')
    with pytest.raises(ValueError, match=message):
        VTAB1K('cifar', 'test', str(root))
