"""MMPretrain's datasets that are folders of classes, on tiny files in the formats of the originals.

ImageNet has folders named by WordNet synsets and lists ``meta/train.txt`` with a label a line,
ImageNet-21k the same without names of classes, Places205 a list ``trainvalsplit_places205``.
"""

import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES, PLACES205_CATEGORIES
from PIL import Image

from gleam_mm.engine import fill_num_classes
from gleam_mm.engine.classes import check_dataset, class_names
from gleam_mm.registry import DATASETS


def write(folder, *paths):
    for number, path in enumerate(paths):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(file)


def labels(dataset):
    return {data['img_path'].rpartition('/')[2]: data['gt_label'] for data in map(dict, dataset)}


@pytest.fixture
def imagenet(tmp_path):
    """Two of the thousand classes, goldfish and toilet tissue, listed with labels 1 and 999."""
    write(tmp_path / 'train', 'n01443537/n01443537_2.JPEG', 'n15075141/n15075141_7.JPEG')
    write(tmp_path / 'val', 'ILSVRC2012_val_00000001.JPEG', 'ILSVRC2012_val_00000002.JPEG')
    write(tmp_path / 'test', 'ILSVRC2012_test_00000001.JPEG')
    meta = tmp_path / 'meta'
    meta.mkdir()
    (meta / 'train.txt').write_text(
        'n01443537/n01443537_2.JPEG 1\nn15075141/n15075141_7.JPEG 999\n'
    )
    (meta / 'val.txt').write_text(
        'ILSVRC2012_val_00000001.JPEG 999\nILSVRC2012_val_00000002.JPEG 1\n'
    )
    return tmp_path


def build(kind, root, **options):
    return DATASETS.build(dict(type=kind, data_root=str(root), **options))


def test_lists_of_imagenet(imagenet):
    train, val = (build('ImageNet', imagenet, split=split) for split in ('train', 'val'))
    assert train.CLASSES == val.CLASSES == tuple(IMAGENET_CATEGORIES)
    assert labels(train) == {'n01443537_2.JPEG': 1, 'n15075141_7.JPEG': 999}
    assert labels(val) == {'ILSVRC2012_val_00000001.JPEG': 999, 'ILSVRC2012_val_00000002.JPEG': 1}
    assert (train.CLASSES[1], train.CLASSES[999]) == (
        'goldfish, Carassius auratus',
        'toilet tissue, toilet paper, bathroom tissue',
    )
    test = build('ImageNet', imagenet, split='test')
    assert [set(data) & {'gt_label'} for data in test] == [set()]


def test_the_head_gets_a_thousand_classes(imagenet):
    dataset = dict(type='ImageNet', data_root=str(imagenet), split='train')
    config = Config(
        dict(model=dict(head=dict(num_classes=None)), train_dataloader=dict(dataset=dataset))
    )
    fill_num_classes(config)
    assert config.model.head.num_classes == 1000
    assert class_names(config) == tuple(IMAGENET_CATEGORIES)


def test_a_name_of_two_classes_is_no_label(imagenet):
    """A crane is a bird and a machine: 134 and 517."""
    (imagenet / 'meta' / 'train.txt').write_text('n01443537/n01443537_2.JPEG crane\n')
    with pytest.raises(ValueError, match=r'train.txt, line 1: .*crane'):
        build('ImageNet', imagenet, split='train')


def test_a_label_beyond_the_thousand_is_named(imagenet):
    (imagenet / 'meta' / 'train.txt').write_text('n01443537/n01443537_2.JPEG 1000\n')
    with pytest.raises(ValueError, match=r'line 1: label 1000 .* 1000 classes, 0 to 999'):
        build('ImageNet', imagenet, split='train')


def test_folders_that_are_not_all_thousand_are_refused(imagenet):
    """Without its list the two folders would be classes 0 and 1."""
    (imagenet / 'meta' / 'train.txt').unlink()
    with pytest.raises(ValueError, match=r'of its 2 folders of classes these are none of the 1000'):
        build('ImageNet', imagenet, split='train')


def test_a_thousand_folders_are_the_classes_in_order(tmp_path):
    for number in range(1000):
        (tmp_path / 'train' / f'n{number:08}').mkdir(parents=True)
    write(tmp_path / 'train', 'n00000001/a.JPEG', 'n00000999/b.JPEG')
    (tmp_path / 'train' / '.ipynb_checkpoints').mkdir()
    dataset = build('ImageNet', tmp_path, split='train')
    assert labels(dataset) == {'a.JPEG': 1, 'b.JPEG': 999}
    assert tuple(IMAGENET_CATEGORIES) == dataset.CLASSES


def test_imagenet21k_names_its_classes_by_folder(tmp_path):
    write(tmp_path / 'train', 'n00005787/a.JPEG', 'n00006484/b.JPEG', 'n00006484/c.JPEG')
    (tmp_path / 'train' / '__MACOSX').mkdir()
    dataset = build('ImageNet21k', tmp_path, split='train')
    assert dataset.CLASSES == ('n00005787', 'n00006484')
    assert labels(dataset) == {'a.JPEG': 0, 'b.JPEG': 1, 'c.JPEG': 1}


def test_imagenet21k_by_a_list_has_labels_and_no_names(tmp_path):
    write(tmp_path / 'train', 'n00005787/a.JPEG', 'n00006484/b.JPEG')
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta' / 'train.txt').write_text('n00005787/a.JPEG 0\nn00006484/b.JPEG 21840\n')
    dataset = build('ImageNet21k', tmp_path, split='train')
    assert labels(dataset) == {'a.JPEG': 0, 'b.JPEG': 21840}
    assert not dataset.CLASSES
    config = Config(
        dict(
            model=dict(head=dict(num_classes=None)),
            train_dataloader=dict(
                dataset=dict(type='ImageNet21k', data_root=str(tmp_path), split='train')
            ),
        )
    )
    with pytest.raises(ValueError, match='ImageNet21k has no class names'):
        fill_num_classes(config)
    with pytest.raises(ValueError, match=r'label 21840 of .*b.JPEG is out of range'):
        check_dataset(dataset, 21840, 'train_dataloader')


def test_places205(tmp_path):
    write(tmp_path / 'data', 'a/abbey/gsun_1.jpg', 'y/yard/gsun_2.jpg')
    (tmp_path / 'train_places205.csv').write_text('a/abbey/gsun_1.jpg 0\ny/yard/gsun_2.jpg 204\n')
    listed = tmp_path / 'train_places205.csv'
    options = dict(data_prefix='data', ann_file=str(listed))
    dataset = build('Places205', tmp_path, **options)
    assert tuple(PLACES205_CATEGORIES) == dataset.CLASSES
    assert len(dataset.CLASSES) == 205
    assert labels(dataset) == {'gsun_1.jpg': 0, 'gsun_2.jpg': 204}
    (tmp_path / 'train_places205.csv').write_text('a/abbey/gsun_1.jpg 205\n')
    with pytest.raises(ValueError, match=r'line 1: label 205 .* 205 classes, 0 to 204'):
        build(
            'Places205',
            tmp_path,
            data_prefix='data',
            ann_file=str(tmp_path / 'train_places205.csv'),
        )
