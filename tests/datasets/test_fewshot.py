"""The few-shot FGVC sets are read as they are published."""

import pytest
from vtab_tree import FGVC_CLASSES, make_fgvc_tree

from gleam_mm.datasets import FGVC_TASKS, FewShotFGVC
from gleam_mm.datasets.fewshot import fgvc_task

PIPELINE = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='PackInputs')]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_fgvc_tree(tmp_path_factory.mktemp('fgvc'), size=8)


@pytest.mark.parametrize('task', FGVC_CLASSES)
def test_reads_images_and_labels(task, root):
    for split, size in (('train', 2 * FGVC_CLASSES[task]), ('val', 4), ('test', 6)):
        dataset = FewShotFGVC(task, 2, 0, split, str(root), pipeline=PIPELINE)
        assert len(dataset) == size
        assert len(dataset.metainfo['classes']) == FGVC_CLASSES[task]
        assert dataset[1]['inputs'].shape == (3, 8, 8)
    assert dataset.get_gt_labels()[-1] == FGVC_CLASSES[task] - 1


def test_paths_with_blanks_are_split_from_the_right(root):
    info = FewShotFGVC('cars', 1, 0, 'train', str(root)).get_data_info(0)
    assert info['img_path'] == str(root / 'stanford_cars' / 'images' / 'class 0 of 0_0.jpg')


def test_pets_1_shot_has_each_image_twice(root):
    dataset = FewShotFGVC('pets', 1, 0, 'train', str(root))
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    assert len(paths) == 74
    assert len(set(paths)) == 37


@pytest.mark.parametrize(
    ('name', 'task'),
    [
        ('food101', 'food-101'),
        ('Stanford Cars', 'stanford_cars'),
        ('standford-cars', 'stanford_cars'),
        ('flowers102', 'oxford_flowers'),
        ('fgvc-aircraft', 'fgvc_aircraft'),
        ('oxford-pets', 'oxford_pets'),
    ],
)
def test_usual_names_resolve(name, task):
    assert fgvc_task(name) == task


@pytest.mark.parametrize('folder', ['jpg', '.', 'images'])
def test_other_names_of_folders_are_found(folder, root, tmp_path):
    source = root / 'oxford_flowers'
    place = tmp_path / 'oxford-flowers102'  # as in the repository of the lists
    place.mkdir()
    (place / 'annotations').symlink_to(source / 'annotations')
    if folder == '.':
        for image in (source / 'images').iterdir():
            (place / image.name).symlink_to(image)
    else:
        (place / folder).symlink_to(source / 'images')
    dataset = FewShotFGVC('flowers', 1, 0, 'train', str(tmp_path), pipeline=PIPELINE)
    assert dataset[0]['inputs'].shape == (3, 8, 8)


def test_mistakes_are_named(root):
    with pytest.raises(ValueError, match=r"unknown few-shot FGVC task 'carz'; .*stanford_cars"):
        FewShotFGVC('carz', 1, 0)
    with pytest.raises(ValueError, match="unknown split 'trian'"):
        FewShotFGVC('cars', 1, 0, 'trian')
    with pytest.raises(ValueError, match='needs `shots` and `seed`'):
        FewShotFGVC('cars', shots=1)
    with pytest.raises(FileNotFoundError, match=r'seed_7 does not exist: set `shots` and `seed` '):
        FewShotFGVC('cars', 1, 7, data_root=str(root))
    with pytest.raises(FileNotFoundError, match='set GLEAM_DATA to the folder that holds fgvc/'):
        FewShotFGVC('cars', split='test', data_root=str(root / 'nowhere'))


def test_each_set_has_its_published_number_of_classes():
    assert {task: facts.num_classes for task, facts in FGVC_TASKS.items()} == FGVC_CLASSES
