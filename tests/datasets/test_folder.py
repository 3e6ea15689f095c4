"""Folders of images, and lists of them, as people have them."""

import pytest
from mmpretrain.datasets import CustomDataset as MMPretrains
from PIL import Image
from torch.utils.data import DataLoader

from gleam_mm import errors
from gleam_mm.datasets import CustomDataset, ImageListError, UnreadableImageError
from gleam_mm.datasets.image_files import warn
from gleam_mm.registry import DATASETS


def fill(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(root / file, 'PNG')
    return root


def names_of(dataset):
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [
        (info['img_path'].split('/')[-2], dataset.metainfo['classes'][info['gt_label']])
        for info in infos
    ]


def test_a_clean_folder_is_read_as_mmpretrain_reads_it(tmp_path, told):
    files = ['b/2.png', 'b/1.png', 'a/x y.png', 'a/sub/1.png', 'a-c/1.jpg', 'a-c/2.jpg']
    fill(tmp_path, *files)
    ours, theirs = CustomDataset(str(tmp_path)), MMPretrains(str(tmp_path))
    assert ours.metainfo == theirs.metainfo
    assert len(ours) == len(theirs) == len(files)
    for index in range(len(files)):
        assert ours.get_data_info(index) == theirs.get_data_info(index)
    assert not told


def test_hidden_folders_are_no_classes(tmp_path, told):
    fill(tmp_path, 'cat/1.png', 'cat/2.png', 'dog/1.png', 'dog/2.png')
    fill(tmp_path, '.ipynb_checkpoints/1.png', '__MACOSX/cat/1.png', 'cat/.thumbs/1.png')
    (tmp_path / '.cache').mkdir()
    dataset = CustomDataset(str(tmp_path))
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert len(dataset) == 4
    (message,) = told
    assert message == (
        f'{tmp_path}: ignored hidden folders (.cache, .ipynb_checkpoints, __MACOSX, cat/.thumbs)'
    )
    assert len(CustomDataset(str(tmp_path), with_label=False)) == 4


def test_a_link_that_leads_back_is_no_class(tmp_path, told):
    fill(tmp_path, *(f'{name}/{i}.png' for name in ('cat', 'dog') for i in range(2)))
    (tmp_path / 'cat' / 'up').symlink_to('..')
    (tmp_path / 'up').symlink_to('..')
    dataset = CustomDataset(str(tmp_path))
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert (len(dataset), told) == (4, [])


def test_every_picture_that_can_be_decoded_is_taken_and_the_rest_told(tmp_path, told):
    fill(tmp_path, 'cat/1.webp', 'cat/2.TIFF', 'cat/3.JPG', 'dog/1.gif', 'dog/2.pnm', 'loose.png')
    (tmp_path / 'cat' / 'notes.txt').write_text('')
    (tmp_path / 'cat' / 'README').write_text('')
    (tmp_path / 'dog' / 'notes.txt').write_text('')
    assert len(CustomDataset(str(tmp_path))) == 5
    assert told == [
        f'{tmp_path}: ignored 3 files by their ending (.txt 2, none 1), 1 pictures in no folder of '
        'a class'
    ]


def test_classes_of_no_or_one_picture_are_told(tmp_path, told):
    fill(tmp_path, 'cat/1.png', 'cat/2.png', 'dog/1.png')
    (tmp_path / 'hen').mkdir()
    dataset = CustomDataset(str(tmp_path))
    assert dataset.metainfo['classes'] == ('cat', 'dog', 'hen')
    assert told == [
        f'{tmp_path}: classes without pictures: hen',
        f'{tmp_path}: classes with one picture only: dog',
    ]
    told.clear()
    warn.cache_clear()
    CustomDataset(str(tmp_path), test_mode=True)
    assert told == [f'{tmp_path}: classes without pictures: hen']


def test_a_folder_without_pictures_is_told(tmp_path):
    (tmp_path / 'cat').mkdir()
    with pytest.raises(
        ValueError, match=f'{tmp_path}: there are no pictures in folders of classes'
    ):
        CustomDataset(str(tmp_path))


def test_classes_name_folders_in_any_order_and_number(tmp_path):
    fill(tmp_path, 'cat/1.png', 'dog/1.png')
    dataset = CustomDataset(str(tmp_path), classes=['hen', 'dog', 'cat'])
    assert names_of(dataset) == [('cat', 'cat'), ('dog', 'dog')]
    # Other names, as many, stand for the folders in their order, as in MMPretrain.
    dataset = CustomDataset(str(tmp_path), classes=['felis', 'canis'])
    assert names_of(dataset) == [('cat', 'felis'), ('dog', 'canis')]


@pytest.mark.parametrize('classes', [['cat', 'hen'], ['cat'], ['felis', 'canis', 'gallus']])
def test_folders_that_are_no_classes_are_named(classes, tmp_path):
    fill(tmp_path, 'cat/1.png', 'dog/1.png')
    with pytest.raises(ValueError, match=r'none of the \d `classes`: .*dog \(there are '):
        CustomDataset(str(tmp_path), classes=classes)


def listed(tmp_path, text, **kwargs):
    (tmp_path / 'list.txt').write_text(text, encoding='utf-8')
    return CustomDataset(str(tmp_path), ann_file='list.txt', **kwargs)


def test_a_list_may_name_classes(tmp_path):
    text = '\ufeffa.jpg cat\nb/c.jpg 0\nd.jpg great dane\n'
    dataset = listed(tmp_path, text, classes=['cat', 'great dane'])
    assert [dataset.get_data_info(i)['gt_label'] for i in range(3)] == [0, 0, 1]
    assert dataset.get_data_info(0)['img_path'] == f'{tmp_path}/a.jpg'
    unlabelled = listed(tmp_path, 'a b.jpg\nc.jpg\n', with_label=False)
    assert unlabelled.get_data_info(0)['img_path'] == f'{tmp_path}/a b.jpg'
    assert 'gt_label' not in unlabelled.get_data_info(0)


def test_paths_of_a_list_may_be_absolute_where_no_folder_is_given(tmp_path):
    file = tmp_path / 'list.txt'
    file.write_text(f'{tmp_path}/a.jpg 0\n')
    dataset = CustomDataset(ann_file=str(file))
    assert dataset.get_data_info(0)['img_path'] == f'{tmp_path}/a.jpg'
    with pytest.raises(ImageListError, match=r'list.txt, line 1: .*a.jpg. leads out of the folder'):
        CustomDataset(str(tmp_path), ann_file=str(file))
    file.write_text('../a.jpg 0\n')
    with pytest.raises(ImageListError, match=r'list.txt, line 1: .*a.jpg. leads out of the folder'):
        CustomDataset(ann_file=str(file))


@pytest.mark.parametrize(
    ('line', 'told'),
    [
        ('b.jpg cow', r'expected `<image path> <label>`, the label a number or the name of a cl'),
        ('b.jpg 2', 'label 2 of b.jpg is out of range; there are 2 classes, 0 to 1'),
        ('b.jpg -1', 'label -1 of b.jpg is out of range'),
        ('../b.jpg 0', "'../b.jpg' leads out of the folder"),
    ],
)
def test_bad_lines_are_named(line, told, tmp_path):
    with pytest.raises(ImageListError, match=f'{tmp_path}/list.txt, line 2: {told}'):
        listed(tmp_path, f'a.jpg 1\n{line}\n', classes=['cat', 'dog'])


def test_an_empty_list_is_told(tmp_path):
    with pytest.raises(ImageListError, match=r'list.txt: the list is empty'):
        listed(tmp_path, '\n')


def test_an_unreadable_image_is_told_with_its_line(tmp_path):
    fill(tmp_path, 'a.png')
    (tmp_path / 'b.png').write_bytes(b'')
    pipeline = [dict(type='LoadImageFromFile')]
    dataset = listed(tmp_path, 'a.png 0\n\nb.png 1\n', pipeline=pipeline)
    assert dataset[0]['img'].shape == (8, 8, 3)
    with pytest.raises(UnreadableImageError) as caught:
        dataset[1]
    assert str(caught.value).startswith(
        f'{tmp_path}/b.png: cannot be read as an image: the file is empty ({tmp_path}/list.txt, '
        'line 3); skip_unreadable=10'
    )


def test_workers_tell_of_an_unreadable_image_in_one_line(tmp_path):
    fill(tmp_path, 'cat/1.png')
    (tmp_path / 'cat/2.png').write_bytes(b'')
    dataset = CustomDataset(str(tmp_path), pipeline=[dict(type='LoadImageFromFile')])
    with pytest.raises(UnreadableImageError) as caught:
        list(DataLoader(dataset, num_workers=1, collate_fn=list))
    told = errors.describe(caught.value)
    assert told.startswith(f'{tmp_path}/cat/2.png: cannot be read as an image: the file is empty;')


def test_so_many_unreadable_images_may_be_left_out(tmp_path, told):
    fill(tmp_path, *(f'{name}/{number}.png' for name in ('cat', 'dog') for number in range(4)))
    (tmp_path / 'cat/0.png').write_bytes(b'')
    (tmp_path / 'dog/3.png').write_bytes(b'no picture')
    config = dict(type='gleam_mm.CustomDataset', data_root=str(tmp_path))
    dataset = DATASETS.build(dict(config, skip_unreadable=2))
    assert [dataset.get_data_info(i)['img_path'][-9:] for i in (0, 5)] == ['cat/1.png', 'dog/2.png']
    assert len(dataset) == 6
    (message,) = told
    assert message.startswith('left out 2 of 8 images: ')
    assert 'cat/0.png: cannot be read as an image: the file is empty; ' in message
    with pytest.raises(UnreadableImageError, match=r'2 of 8 images cannot be read, with skip_unr'):
        DATASETS.build(dict(config, skip_unreadable=1))
    for value in (-1, True, 'many', 0.5):
        with pytest.raises(ValueError, match=r'skip_unreadable=.*: choose a whole number of at'):
            DATASETS.build(dict(config, skip_unreadable=value))
