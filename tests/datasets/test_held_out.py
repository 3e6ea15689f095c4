"""What is held out for validation."""

import numpy as np
import pytest
from PIL import Image

from gleam_mm.datasets import CustomDataset

CLASSES = {'kingfisher': 10, 'parakeet': 20, 'robin': 5}


@pytest.fixture
def birds(tmp_path):
    for name, number in CLASSES.items():
        (tmp_path / name).mkdir()
        for index in range(number):
            pixels = np.full((8, 8, 3), index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f'{index}.png')
    return str(tmp_path)


def paths(**options):
    data = CustomDataset(**options)
    return [data.get_data_info(index)['img_path'] for index in range(len(data))]


def test_both_parts_are_the_whole_and_every_class_is_in_proportion(birds):
    rest = CustomDataset(data_root=birds, hold_out=0.2)
    held = CustomDataset(data_root=birds, hold_out=0.2, take_held_out=True)
    assert sorted(paths(data_root=birds)) == sorted(
        data.get_data_info(index)['img_path'] for data in (rest, held) for index in range(len(data))
    )
    assert np.bincount(held.get_gt_labels()).tolist() == [2, 4, 1]
    assert np.bincount(rest.get_gt_labels()).tolist() == [8, 16, 4]
    assert rest.metainfo['classes'] == held.metainfo['classes'] == tuple(CLASSES)


def test_the_seed_decides(birds):
    again, other = (
        paths(data_root=birds, hold_out=0.2, take_held_out=True, hold_out_seed=seed)
        for seed in (0, 1)
    )
    assert again == paths(data_root=birds, hold_out=0.2, take_held_out=True)
    assert again == paths(data_root=birds, hold_out=[0.0, 0.2], take_held_out=True)
    assert again != other


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (dict(hold_out=1.0), 'hold_out=1.0'),
        (dict(hold_out=-0.5), 'hold_out=-0.5'),
        (dict(take_held_out=True), 'take_held_out=True'),
        (dict(hold_out=0.2, take_held_out='no'), "take_held_out='no': choose True or False"),
        (dict(hold_out=0.99), 'leaves none'),
    ],
)
def test_mistakes(birds, options, told):
    with pytest.raises(ValueError, match=told):
        CustomDataset(data_root=birds, **options)
