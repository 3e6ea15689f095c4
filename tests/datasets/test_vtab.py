"""VTAB-1K is read as the community lays it out."""

import pytest
from vtab_tree import make_vtab_tree

from gleam_mm.datasets import VTAB1K, VTAB_TASKS, UnreadableImageError
from gleam_mm.datasets.vtab import vtab_task

SIZES = {'train800': 8, 'val200': 2, 'train800val200': 10, 'test': 3}
PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='Resize', scale=(16, 16), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]


@pytest.fixture
def root(tmp_path):
    """The cifar task in miniature."""
    return make_vtab_tree(tmp_path, ['cifar'], train=8, val=2, test=3, size=8)


@pytest.mark.parametrize('split', SIZES)
def test_reads_images_and_labels(split, root):
    dataset = VTAB1K('cifar', split, str(root), pipeline=PIPELINE)
    assert len(dataset) == SIZES[split]
    assert len(dataset.metainfo['classes']) == 100
    item = dataset[0]
    assert item['inputs'].shape == (3, 16, 16)
    assert item['data_samples'].gt_label.item() == 0
    assert dataset.get_gt_labels()[-1] == 99


@pytest.mark.parametrize('task', VTAB_TASKS)
def test_every_task_of_the_tree_is_read(task, tmp_path):
    make_vtab_tree(tmp_path, [task], size=8)
    for split in SIZES:
        # Serialising collects garbage in the whole process, which takes long.
        dataset = VTAB1K(task, split, str(tmp_path), serialize_data=False)
        assert dataset.get_gt_labels().max() == VTAB_TASKS[task].num_classes - 1


def test_all_19_tasks_in_three_groups():
    groups = [task.group for task in VTAB_TASKS.values()]
    counts = {group: groups.count(group) for group in groups}
    assert counts == {'natural': 7, 'specialized': 4, 'structured': 8}


@pytest.mark.parametrize(
    ('name', 'task'),
    [
        ('cifar100', 'cifar'),
        ('CIFAR-100', 'cifar'),
        ('flowers102', 'oxford_flowers102'),
        ('pets', 'oxford_iiit_pet'),
        ('caltech-101', 'caltech101'),
        ('camelyon', 'patch_camelyon'),
        ('retinopathy', 'diabetic_retinopathy'),
        ('clevr-count', 'clevr_count'),
        ('dSprites orientation', 'dsprites_ori'),
        ('smallnorb-azi', 'smallnorb_azi'),
        *((task, task) for task in VTAB_TASKS),
    ],
)
def test_usual_names_resolve(name, task):
    assert vtab_task(name) == task


def test_data_root_is_the_configs_then_the_variables_then_data(root, monkeypatch, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'vtab-1k').symlink_to(root)
    monkeypatch.setenv('GLEAM_DATA', str(tmp_path / 'elsewhere'))
    assert len(VTAB1K('cifar', 'test')) == 3
    with pytest.raises(FileNotFoundError, match=r'nowhere/cifar/test\.txt'):
        VTAB1K('cifar', 'test', 'nowhere')
    monkeypatch.delenv('GLEAM_DATA')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'^data/vtab-1k/cifar/test.txt does not exist'):
        VTAB1K('cifar', 'test')
    (tmp_path / 'elsewhere').rename('data')
    assert len(VTAB1K('cifar', 'test', pipeline=PIPELINE)[0]['inputs']) == 3


def test_mistakes_are_named(root):
    with pytest.raises(ValueError, match=r"unknown VTAB-1K task 'clevr-cnt'; .*clevr_count"):
        VTAB1K('clevr-cnt', 'test', str(root))
    with pytest.raises(ValueError, match="unknown split 'train'; VTAB-1K has: train800, val200"):
        VTAB1K('cifar', 'train', str(root))
    with pytest.raises(FileNotFoundError, match=r'svhn/test.txt does not exist: put VTAB-1K there'):
        VTAB1K('svhn', 'test', str(root))
    with pytest.raises(ValueError, match='cifar has 100 classes, but 2 names are given'):
        VTAB1K('cifar', 'test', str(root), classes=('cat', 'dog'))


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


@pytest.mark.parametrize('cache', [False, True])
def test_unreadable_images_are_named(cache, root):
    images = root / 'cifar' / 'images' / 'test'
    whole = (images / '000001.jpg').read_bytes()
    (images / '000001.jpg').write_bytes(whole[: len(whole) * 2 // 3])  # OpenCV would pad with grey
    (images / '000002.jpg').unlink()
    dataset = VTAB1K('cifar', 'test', str(root), cache=cache, pipeline=PIPELINE)
    cut = r'test/000001.jpg: cannot be read as an image: (?i:.*truncated).* \(.*test.txt, line 2\)'
    with pytest.raises(UnreadableImageError, match=cut):
        dataset[1]
    with pytest.raises(UnreadableImageError, match=r'000002.jpg does not exist \(.*, line 3\)'):
        dataset[2]


def test_an_empty_list_is_named(root):
    (root / 'cifar' / 'test.txt').write_text('\n')
    with pytest.raises(ValueError, match=r'test.txt: the list is empty'):
        VTAB1K('cifar', 'test', str(root))
