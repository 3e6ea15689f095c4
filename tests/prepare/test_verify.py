"""Every fault of a dataset on disk is found, and named with its file and line."""

from pathlib import Path

import pytest
from PIL import Image
from vtab_tree import make_fgvc_tree, make_vtab_tree

from gleam_mm.datasets.vtab import VTAB_TASKS
from gleam_mm.prepare import printout
from gleam_mm.prepare.verify import find_layouts, verify


@pytest.fixture
def root(tmp_path):
    return make_vtab_tree(tmp_path / 'vtab-1k', ['kitti'], size=8)


def check(root, layout='vtab-1k', task='kitti', **options):
    options.setdefault('any_size', True)
    return {checked.split: checked for checked in verify(layout, root, [task], **options)}


def replace_line(file, number, line):
    lines = file.read_text().splitlines()
    lines[number - 1] = line
    file.write_text('\n'.join(lines) + '\n')


def test_a_whole_tree_has_no_faults(tmp_path):
    make_vtab_tree(tmp_path, size=8)
    reports = list(verify('vtab-1k', tmp_path, decode=True, workers=2, any_size=True))
    assert len(reports) == 4 * len(VTAB_TASKS)
    assert not any(checked.faults or checked.warnings for checked in reports)


def test_lines_are_counted_by_class(root):
    checked = check(root)['train800val200']
    assert checked.lines == 12
    assert checked.counts == {0: 3, 1: 3, 2: 3, 3: 3}
    row = printout.row(checked).split()
    assert row[:5] == ['kitti', 'train800val200', '12', '4/4', '3-3']
    assert '0: 3  1: 3  2: 3  3: 3' in printout.per_class(checked)


def test_short_lists_are_a_fault_unless_allowed(root):
    faults = check(root, any_size=False)['test'].faults
    assert faults == [f'{root}/kitti/test.txt: 6 lines, there must be 711']


@pytest.mark.parametrize(
    ('line', 'told'),
    [
        ('images/test/000001.jpg 4', 'label 4 is out of range, 0 to 3'),
        ('images/test/000001.jpg -1', 'label -1 is out of range'),
        ('images/test/000001.jpg', 'expected `<image path> <label>`'),
        ('images/test/nothing.jpg 1', 'images/test/nothing.jpg does not exist'),
        ('images/tset/000001.jpg 1', 'images/tset/000001.jpg does not exist'),
        ('images/test/000000.jpg 3', 'has label 3 here and 0 in line 1'),
    ],
)
def test_bad_lines_are_named(line, told, root):
    file = root / 'kitti' / 'test.txt'
    replace_line(file, 2, line)
    faults = check(root)['test'].faults
    assert len(faults) == 1
    assert faults[0].startswith(f'{file}, line 2: ')
    assert told in faults[0]


def test_a_repeated_line_is_a_warning(root):
    replace_line(root / 'kitti' / 'test.txt', 5, 'images/test/000000.jpg 0')
    checked = check(root)['test']
    assert not checked.faults
    assert len(checked.warnings) == 1
    assert 'test.txt, line 5: images/test/000000.jpg is in line 1 already' in checked.warnings[0]


def test_a_list_that_is_not_the_union_of_its_parts_is_a_warning(root):
    replace_line(root / 'kitti' / 'train800val200.txt', 1, 'images/train800val200/000000.jpg 3')
    assert 'not distributed as' in check(root)['train800val200'].warnings[0]


def test_lists_that_do_not_exist_or_are_not_text_are_faults(root):
    (root / 'kitti' / 'val200.txt').unlink()
    (root / 'kitti' / 'test.txt').write_bytes(b'images/\xff.jpg 1\n')
    checked = check(root)
    assert checked['val200'].faults == [f'{root}/kitti/val200.txt: does not exist']
    assert checked['test'].faults == [f'{root}/kitti/test.txt, line 1: not UTF-8']


def test_images_are_decoded_if_wanted(root):
    images = root / 'kitti' / 'images' / 'test'
    whole = (images / '000003.jpg').read_bytes()
    (images / '000003.jpg').write_bytes(whole[: len(whole) * 2 // 3])
    (images / '000004.jpg').write_bytes(b'this is no image')
    (images / '000005.jpg').write_bytes(b'')
    assert [fault.split(': ')[1:] for fault in check(root)['test'].faults] == [
        [f'{images}/000005.jpg is empty']
    ]
    faults = check(root, decode=True, workers=2)['test'].faults
    assert len(faults) == 3
    assert 'test.txt, line 4: ' in faults[1] and 'cannot be read as an image: ' in faults[1]
    assert 'test.txt, line 5: ' in faults[2]


def test_images_of_one_colour_are_a_warning(root):
    for number in (1, 2):
        Image.new('RGB', (8, 8), 'white').save(root / f'kitti/images/test/00000{number}.jpg')
    (warning,) = check(root, decode=True, workers=1)['test'].warnings
    assert 'test.txt, line 2: ' in warning
    assert warning.endswith('000001.jpg is of one colour, and 1 more are so too')
    assert not check(root)['test'].warnings


def test_a_byte_order_mark_is_no_fault_and_a_way_out_is_one(root):
    file = root / 'kitti' / 'test.txt'
    file.write_bytes(b'\xef\xbb\xbf' + file.read_bytes())
    assert not check(root)['test'].faults
    replace_line(file, 2, '../dtd/images/test/000001.jpg 1')
    (fault,) = check(root)['test'].faults
    assert fault.startswith(f"{file}, line 2: '../dtd/images/test/000001.jpg' leads out of")


@pytest.fixture(scope='module')
def few(tmp_path_factory):
    """Pets, whose 1-shot list names each image twice."""
    return make_fgvc_tree(tmp_path_factory.mktemp('fgvc'), ['oxford_pets'], size=8)


def test_published_few_shot_lists_have_no_faults(few):
    reports = check(few, 'fgvc', 'pets', decode=True, workers=1)
    assert list(reports) == ['1-shot, seed 0', '2-shot, seed 0', 'val', 'test']
    assert reports['1-shot, seed 0'].lines == 74
    assert not any(checked.faults or checked.warnings for checked in reports.values())


def test_few_shot_lists_are_balanced_and_disjoint(tmp_path):
    make_fgvc_tree(tmp_path, ['oxford_pets'], shots=[2], size=8)
    annotations = tmp_path / 'oxford_pets' / 'annotations'
    file = annotations / 'train_meta.list.num_shot_2.seed_0'
    replace_line(file, 1, 'class 1 of 0_0.jpg 0')  # of class 1
    replace_line(annotations / 'test_meta.list', 2, 'val_1.jpg 1')
    checked = check(tmp_path, 'fgvc', 'pets')
    assert (
        'line 3: class 1 of 0_0.jpg has label 1 here and 0' in checked['2-shot, seed 0'].faults[0]
    )
    assert 'test_meta.list, line 2: val_1.jpg is in val_meta.list' in checked['test'].faults[0]
    replace_line(file, 1, 'class 0 of 0_1.jpg 1')
    faults = check(tmp_path, 'fgvc', 'pets', any_size=False)['2-shot, seed 0'].faults
    assert any('2 classes have not 2 lines, the first is class 0 with 1' in f for f in faults)


def test_layouts_are_found(root, few, monkeypatch):
    assert find_layouts(root) == {'vtab-1k': root}
    assert find_layouts(root.parent) == {'vtab-1k': root}
    assert find_layouts(few) == {'fgvc': few}
    monkeypatch.setenv('GLEAM_DATA', str(root.parent))
    assert find_layouts() == {'vtab-1k': root}
    with pytest.raises(FileNotFoundError, match='neither vtab-1k/ nor fgvc/'):
        find_layouts(Path('nowhere'))


def test_of_many_faults_the_first_are_printed(root):
    file = root / 'kitti' / 'test.txt'
    file.write_text(''.join(f'images/test/{index}.png 0\n' for index in range(50)))
    reports = list(check(root).values())
    told = printout.problems(reports).splitlines()
    assert len(told) == 21
    assert told[-1] == 'fault: 30 more in kitti, test; --all tells them'
    assert len(printout.problems(reports, every=True).splitlines()) == 50
    assert printout.summary(reports) == '4 lists, 74 lines: 50 faults, 0 warnings'


def test_what_lists_name_is_printable(root):
    replace_line(root / 'kitti' / 'test.txt', 1, 'images/\x1b[31mred.png 0')
    told = printout.problems(list(check(root).values()))
    assert len(told.splitlines()) == 1
    assert r'images/\x1b[31mred.png' in told
