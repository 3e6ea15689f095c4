"""CSV files, tar files and Hugging Face's datasets: the same pictures as in a folder."""

import csv
import io
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from gleam_mm.datasets import (
    CSVDataset,
    CustomDataset,
    HuggingFaceDataset,
    ImageListError,
    TarDataset,
    UnreadableImageError,
)
from gleam_mm.datasets.csv_list import read_table
from gleam_mm.datasets.sources import source_of
from gleam_mm.registry import DATASETS

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
CLASSES = ('kingfisher', 'parakeet', 'robin')


@pytest.fixture(scope='module')
def birds(tmp_path_factory):
    """Two pictures of each of three classes, ``<class>/<number>.png``."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp('birds')
    for name in CLASSES:
        (folder / name).mkdir()
        for index in range(2):
            pixels = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{index}.png')
    return folder


def write(file, rows):
    with file.open('w', newline='') as out:
        csv.writer(out).writerows(rows)
    return file


def same(ours, folder):
    """Whether a dataset gives the pictures and labels of a folder, in its order."""
    expected = CustomDataset(data_root=str(folder), pipeline=PIPELINE)
    assert ours.metainfo['classes'] == expected.metainfo['classes']
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert torch.equal(one['inputs'], other['inputs'])
        assert torch.equal(one['data_samples'].gt_label, other['data_samples'].gt_label)
    return True


# CSV ------------------------------------------------------------------------------------------


def table(birds, tmp_path):
    pictures = sorted(file.relative_to(birds) for file in birds.rglob('*.png'))
    return [['image', 'label'], *([str(p), p.parts[0]] for p in pictures)]


def test_a_table_of_classes(birds, tmp_path):
    file = write(tmp_path / 'birds.csv', table(birds, tmp_path))
    assert same(CSVDataset(file, data_root=str(birds), pipeline=PIPELINE), birds)


def test_the_folder_of_the_table_and_its_splits(birds):
    rows = [['file', 'bird', 'split']]
    rows += [[f'{name}/{i}.png', name, ('train', 'val')[i]] for i in range(2) for name in CLASSES]
    file = write(birds / 'lists.csv', rows)
    columns = dict(image_column='file', label_column='bird')
    train, val = (CSVDataset(file, split=split, **columns) for split in ('train', 'val'))
    assert [len(train), len(val)] == [3, 3]
    assert train.metainfo['classes'] == val.metainfo['classes'] == CLASSES
    assert {val.get_data_info(i)['img_path'] for i in range(3)} == {
        str(birds / name / '1.png') for name in CLASSES
    }


def test_numbers_are_classes_by_their_value(tmp_path):
    file = write(tmp_path / 'x.csv', [['image', 'label'], ['a.png', '10'], ['b.png', '9']])
    data = CSVDataset(file)
    assert data.metainfo['classes'] == ('9', '10')
    assert data.get_gt_labels().tolist() == [1, 0]
    # Of one value in an order of their own, which no two processes have otherwise.
    same = ['1'.zfill(width) for width in range(1, 12)]
    rows = [['image', 'label'], ['a.png', '2'], *(['a.png', name] for name in same)]
    alike = CSVDataset(write(tmp_path / 'y.csv', rows))
    assert alike.metainfo['classes'] == (*reversed(same), '2')


@pytest.mark.parametrize('place', ['classes', 'metainfo'])
def test_classes_that_are_numbers_are_their_texts(tmp_path, place):
    def told(classes):
        return {'classes': classes} if place == 'classes' else {'metainfo': {'classes': classes}}

    for number in range(3):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / '0.png').touch()
    rows = [['image', 'label'], *([f'{number}/0.png', number] for number in range(3))]
    table_of = CSVDataset(write(tmp_path / 'x.csv', rows), **told([2, 0, 1]))
    folder = CustomDataset(data_root=str(tmp_path), **told([2, 0, 1]))
    for data in (table_of, folder):
        assert data.metainfo['classes'] == ('2', '0', '1')
        labels = {os.path.relpath(d['img_path'], tmp_path): d['gt_label'] for d in data}
        assert labels == {'0/0.png': 1, '1/0.png': 2, '2/0.png': 0}
    with pytest.raises(ImageListError, match="line 2: '0' is no class"):
        CSVDataset(tmp_path / 'x.csv', **told([1, 2]))


def test_several_classes_and_none(tmp_path):
    rows = [['image', 'label'], ['a.png', 'wing;beak'], ['b.png', ''], ['c.png', 'beak']]
    data = CSVDataset(write(tmp_path / 'x.csv', rows), target='classes')
    assert data.metainfo['classes'] == ('beak', 'wing')
    assert [data.get_data_info(i)['gt_label'] for i in range(3)] == [[1, 0], [], [0]]


def test_numbers_to_be_met(tmp_path):
    rows = [['image', 'x', 'y'], ['a.png', '1.5', '-2'], ['b.png', '1e3', '0']]
    data = CSVDataset(write(tmp_path / 'x.csv', rows), label_column=['x', 'y'], target='number')
    assert data.metainfo['classes'] == ('x', 'y')
    assert [data.get_data_info(i)['gt_score'] for i in range(2)] == [[1.5, -2.0], [1000.0, 0.0]]


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_columns_and_delimiters_as_people_have_them(tmp_path, delimiter):
    (tmp_path / 'x.csv').write_text(
        '\n'.join(delimiter.join(row) for row in [('Path', 'species'), ('a.png', 'wren')])
    )
    data = CSVDataset(tmp_path / 'x.csv')
    assert data.metainfo['classes'] == ('wren',)
    assert data.get_data_info(0)['img_path'] == str(tmp_path / 'a.png')


@pytest.mark.parametrize(
    ('rows', 'options', 'told'),
    [
        ([['images', 'label'], ['a', 'b']], {}, r"no column 'image' \(did you mean 'images'"),
        ([['path', 'file', 'label'], ['a', 'b', 'c']], {}, r'path, file, label.* by image_column='),
        ([['path|label'], ['a|b']], {}, 'by delimiter='),
        ([['image', 'label'], ['a.png']], {}, 'line 2: not 2 columns'),
        ([['image', 'label'], ['../a.png', 'b']], {}, r'line 2: .*leads out'),
        ([['image', 'label'], ['a.png', ' ']], {}, 'line 2: label is empty'),
        ([['image', 'label'], ['a.png', 'robbin']], dict(classes=CLASSES), "did you mean 'robin'"),
        ([['image', 'label'], ['a.png', 'x']], dict(target='number'), "label='x' is no number"),
        ([['image', 'label'], ['a.png', 'nan']], dict(target='number'), 'is no number'),
        ([['image', 'label', 'label'], ['a.png', 'b', 'c']], {}, 'line 1: .* called label; give'),
        ([['image', 'label']], {}, 'no lines'),
        ([['image', 'label', 'split'], ['a', 'b', 'train']], dict(split='val'), "split='val'"),
    ],
)
def test_mistakes_of_a_table(tmp_path, rows, options, told):
    with pytest.raises(ImageListError, match=told):
        CSVDataset(write(tmp_path / 'x.csv', rows), **options)


def test_no_column_at_all_is_refused(tmp_path):
    file = write(tmp_path / 'x.csv', [['image', 'label'], ['a.png', '1']])
    with pytest.raises(ValueError, match=r'label_column=\[\]: name a column'):
        CSVDataset(file, label_column=[], target='number')


@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_blank_lines_count_and_those_in_quotes_stay(tmp_path, end):
    lines = ['', 'image;label', '', 'a.png;"big', '', 'bird"', '   ', 'b.png;robin', '']
    file = tmp_path / 'x.csv'
    file.write_bytes(end.join(lines).encode())
    assert read_table(file) == (
        ['image', 'label'],
        [
            (6, {'image': 'a.png', 'label': 'big\n\nbird'}),
            (8, {'image': 'b.png', 'label': 'robin'}),
        ],
    )
    for bad, number, told in (
        ('../c.png;wren', 9, 'leads out'),
        ('c.png;wren;wren', 9, 'not 2 columns'),
        ('"c".png;wren', 9, "';' expected after '\"'"),
        ('c.png;"wren', 9, 'unexpected end of data'),
    ):
        file.write_bytes(end.join([*lines[:-1], bad, '']).encode())
        with pytest.raises(ImageListError, match=rf'x\.csv, line {number}: .*{told}'):
            CSVDataset(file)


def test_a_picture_that_is_missing_is_told_with_its_line(birds, tmp_path):
    rows = [*table(birds, tmp_path), ['gone.png', 'robin']]
    file = write(tmp_path / 'birds.csv', rows)
    data = CSVDataset(file, data_root=str(birds), pipeline=PIPELINE)
    with pytest.raises(UnreadableImageError, match=r'gone.png.*birds.csv, line 8'):
        data[6]
    left = CSVDataset(file, data_root=str(birds), pipeline=PIPELINE, skip_unreadable=1)
    assert len(left) == 6


# Tar files ------------------------------------------------------------------------------------


def shard(file, samples):
    """Writes a shard without WebDataset's help: (key, {ending: bytes})."""
    with tarfile.open(file, 'w') as tar:
        for key, parts in samples:
            for ending, content in parts.items():
                member = tarfile.TarInfo(f'{key}.{ending}')
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(file)


def samples(birds, label):
    for file in sorted(birds.rglob('*.png')):
        name = file.parent.name
        key = f'{name}_{file.stem}'
        yield key, {'png': file.read_bytes(), 'cls': label(name).encode(), 'json': b'{}'}


@pytest.mark.parametrize('label', [str, lambda name: str(CLASSES.index(name))])
def test_shards(birds, tmp_path, label):
    whole = list(samples(birds, label))
    shard(tmp_path / 'train-00.tar', whole[:4])
    shard(tmp_path / 'train-01.tar', whole[4:])
    for pattern in ('train-*.tar', 'train-{00..01}.tar'):
        data = TarDataset(str(tmp_path / pattern), classes=CLASSES, pipeline=PIPELINE)
        assert same(data, birds)


def test_what_webdataset_writes_and_reads(birds, tmp_path):
    webdataset = pytest.importorskip('webdataset')
    with webdataset.TarWriter(str(tmp_path / 'a.tar')) as writer:
        for file in sorted(birds.rglob('*.png')):
            label = CLASSES.index(file.parent.name)
            key = f'{file.parent.name}/{file.stem}'
            writer.write({'__key__': key, 'png': file.read_bytes(), 'cls': label})
    data = TarDataset(str(tmp_path / 'a.tar'), pipeline=PIPELINE)
    assert data.metainfo['classes'] == ('0', '1', '2')
    theirs = webdataset.WebDataset(str(tmp_path / 'a.tar'), shardshuffle=False).decode('rgb8')
    for ours, (picture, label) in zip(data, theirs.to_tuple('png', 'cls'), strict=True):
        bgr = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)
        assert torch.equal(ours['inputs'], bgr)
        assert ours['data_samples'].gt_label.item() == label


def test_mistakes_of_shards(birds, tmp_path):
    with pytest.raises(FileNotFoundError, match='lost'):
        TarDataset(str(tmp_path / 'lost-*.tar'))
    (tmp_path / 'no.tar').write_bytes(b'no tar file')
    with pytest.raises(ValueError, match=r'no\.tar: cannot be read as a tar file'):
        TarDataset(str(tmp_path / 'no.tar'))
    png = next(birds.rglob('*.png')).read_bytes()
    file = shard(tmp_path / 'a.tar', [('x', {'png': png, 'txt': b'robin'})])
    with pytest.raises(ValueError, match=r'a\.tar: x has no \.cls'):
        TarDataset(file)
    assert TarDataset(file, label='txt').metainfo['classes'] == ('robin',)
    empty = shard(tmp_path / 'c.tar', [('x', {'png': png, 'cls': b' '})])
    with pytest.raises(ValueError, match=r"c\.tar/x\.png: \.cls is '', which is no class"):
        TarDataset(empty)
    broken = shard(tmp_path / 'b.tar', [('x', {'png': png[:20], 'cls': b'0'})])
    with pytest.raises(UnreadableImageError, match=r'b\.tar/x\.png'):
        TarDataset(broken, pipeline=PIPELINE)[0]


def test_shards_that_lack_pictures_are_refused(birds, tmp_path):
    whole = list(samples(birds, str))
    file = tmp_path / 'a.tar'
    shard(file, whole)
    content = file.read_bytes()
    with tarfile.open(file) as tar:
        third = tar.getmembers()[6].offset  # of three files each
    damaged = bytearray(content)
    damaged[third + 3] ^= 1
    for bad in (bytes(damaged), content[: third + 100], content[:third]):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match=rf'a\.tar: ends or is damaged at byte {third:,}'):
            TarDataset(str(file))
    file.write_bytes(content + content)
    with pytest.raises(ValueError, match=r'a\.tar: goes on behind its end .* joined by `cat`'):
        TarDataset(str(file))
    file.write_bytes(content + bytes(10240))
    assert len(TarDataset(str(file))) == 6


def test_two_pictures_or_classes_of_one_key_are_refused(birds, tmp_path):
    png = next(birds.rglob('*.png')).read_bytes()
    file = shard(tmp_path / 'a.tar', [('x', {'png': png, 'JPG': png, 'cls': b'0'})])
    with pytest.raises(ValueError, match=r'a\.tar: x\.png and x\.JPG are each a picture of x'):
        TarDataset(file)
    file = shard(tmp_path / 'b.tar', [('x', {'png': png, 'cls': b'0', 'CLS': b'1'})])
    with pytest.raises(ValueError, match=r'b\.tar: x\.cls and x\.CLS are each a class of x'):
        TarDataset(file)


def test_hard_links_in_a_shard_are_read_and_others_refused(birds, tmp_path):
    """As `tar` packs a file that it meets by a second name."""
    (tmp_path / 'x.png').write_bytes(next(birds.rglob('*.png')).read_bytes())
    (tmp_path / 'x.cls').write_text('robin')
    for ending in ('png', 'cls'):
        (tmp_path / f'y.{ending}').hardlink_to(tmp_path / f'x.{ending}')
        (tmp_path / f'z.{ending}').symlink_to(f'x.{ending}')

    def packed(*names):
        with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
            for name in names:
                for ending in ('png', 'cls'):
                    tar.add(tmp_path / f'{name}.{ending}', f'{name}.{ending}')
        return TarDataset(str(tmp_path / 'a.tar'), pipeline=PIPELINE)

    first, second = packed('x', 'y')
    assert torch.equal(first['inputs'], second['inputs'])
    assert first['data_samples'].gt_label == second['data_samples'].gt_label
    with pytest.raises(ValueError, match=r'a\.tar: z\.png is a link to x\.png, without contents'):
        packed('x', 'z')


def test_classes_without_a_picture_are_told(birds, tmp_path, told):
    whole = list(samples(birds, str))
    name = whole[0][0]
    whole[0][1]['avif'] = whole[0][1].pop('png')
    file = shard(tmp_path / 'a.tar', whole)
    assert len(TarDataset(file)) == 5
    assert f'{file}: ignored 1 .cls without a picture: {name}; endings that are read' in told[0]


def test_shards_of_another_split_are_none_of_this(birds, tmp_path, told):
    names = ('train-0', 'train-[1]', 'train_{2..3}', 'trainval-0', 'train2-0', 'val', 'valid2-0')
    for name in names:
        shard(tmp_path / f'{name}.tar', samples(birds, str))
    source = source_of(tmp_path)
    for part, own in ((source.train, names[:3]), (source.val, ['val'])):
        data = DATASETS.build(part)
        found = {data.get_data_info(i)['shard'] for i in range(len(data))}
        assert found == {str(tmp_path / f'{name}.tar') for name in own}
    assert told[0].startswith(f'{tmp_path}: ignored trainval, which is train and val once more')
    assert told[1].startswith(f'{tmp_path}: ignored train2, valid2, which are no splits')


# Hugging Face ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def saved(birds, tmp_path_factory):
    """What ``save_to_disk`` writes of the birds."""
    datasets = pytest.importorskip('datasets')
    files = sorted(birds.rglob('*.png'))
    features = datasets.Features(
        photo=datasets.Image(), bird=datasets.ClassLabel(names=list(CLASSES))
    )
    rows = dict(photo=[str(f) for f in files], bird=[f.parent.name for f in files])
    data = datasets.Dataset.from_dict(rows, features=features)
    folder = tmp_path_factory.mktemp('saved')
    datasets.DatasetDict(train=data, test=data.select([0, 2])).save_to_disk(str(folder))
    data.to_parquet(str(folder / 'parquet' / 'birds.parquet'))
    return folder


def test_a_saved_dataset(saved, birds):
    assert same(HuggingFaceDataset(str(saved), pipeline=PIPELINE), birds)
    assert len(HuggingFaceDataset(str(saved), split='test')) == 2


def test_a_folder_of_parquet_files(saved, birds, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_DATASETS_CACHE', str(tmp_path))
    options = dict(cache_dir=str(tmp_path))
    data = HuggingFaceDataset(str(saved / 'parquet'), pipeline=PIPELINE, options=options)
    assert same(data, birds)


def test_what_was_saved_without_splits_is_no_other_split(saved, tmp_path):
    datasets = pytest.importorskip('datasets')
    for split in ('train', 'test'):
        datasets.load_from_disk(str(saved))[split].save_to_disk(str(tmp_path / split))
    assert len(HuggingFaceDataset(str(tmp_path / 'train'))) > 2
    assert len(HuggingFaceDataset(str(tmp_path / 'test'))) == 2
    for split in ('val', 'test', 'train[:50%]'):  # each would be all of the training images
        with pytest.raises(ValueError, match='saved as one dataset, without splits'):
            HuggingFaceDataset(str(tmp_path / 'train'), split=split)


def test_mistakes_of_a_saved_dataset(saved):
    with pytest.raises(ValueError, match=r"no split 'tset' \(did you mean 'test'"):
        HuggingFaceDataset(str(saved), split='tset')
    with pytest.raises(ValueError, match=r"label_column='brid' \(did you mean 'bird'"):
        HuggingFaceDataset(str(saved), label_column='brid')


@pytest.mark.parametrize(
    ('labels', 'row', 'told'),
    [
        (['robin', None, 'wren'], 1, 'None'),
        ([0.0, 0.9, 1.7], 1, '0.9'),
        ([None, None, None], 0, 'None'),
        ([0, 1, None], 2, 'None'),
        ([0.0, float('nan'), 1.0], 1, 'nan'),
        (['robin', 'wren', ''], 2, "''"),
        ([[0], [1], [0, 1]], 0, r'\[0\]'),
    ],
)
def test_labels_that_are_no_classes(birds, tmp_path, labels, row, told):
    datasets = pytest.importorskip('datasets')
    rows = dict(photo=[str(file) for file in sorted(birds.rglob('*.png'))[:3]], bird=labels)
    data = datasets.Dataset.from_dict(rows).cast_column('photo', datasets.Image())
    data.save_to_disk(str(tmp_path / 'saved'))
    with pytest.raises(
        ValueError, match=rf"saved\[train\]\[{row}\]: column 'bird' is {told}, which is no class"
    ):
        HuggingFaceDataset(str(tmp_path / 'saved'), label_column='bird')


def test_rows_without_a_picture_can_be_left_out(birds, tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    features = datasets.Features(photo=datasets.Image(), bird=datasets.ClassLabel(names=['a', 'b']))
    gone, pipe = str(tmp_path / 'gone.png'), str(tmp_path / 'pipe.png')
    os.mkfifo(pipe)
    photos = [str(next(birds.rglob('*.png'))), None, gone, pipe]
    data = datasets.Dataset.from_dict(dict(photo=photos, bird=[0, 1, 0, 1]), features=features)
    monkeypatch.setattr(HuggingFaceDataset, '_load', lambda *_: data)  # save_to_disk takes them in
    read = HuggingFaceDataset('saved', pipeline=PIPELINE)
    for row, told in (
        (1, 'the row has no picture'),
        (2, f'{gone}: No such file or directory'),
        (3, f'{pipe}: it is no regular file'),
    ):
        with pytest.raises(
            UnreadableImageError,
            match=rf'saved\[train\]\[{row}\]: cannot be read as an image: {told}; skip_unreadable',
        ):
            read[row]
    left = HuggingFaceDataset('saved', pipeline=PIPELINE, skip_unreadable=3)
    assert [left.get_data_info(i)['row'] for i in range(len(left))] == [0]


def test_whole_numbers_may_be_written_as_floats(birds, tmp_path):
    datasets = pytest.importorskip('datasets')
    files = [str(file) for file in sorted(birds.rglob('*.png'))[:3]]
    data = datasets.Dataset.from_dict(dict(photo=files, bird=[0.0, 2.0, 1.0]))
    data.cast_column('photo', datasets.Image()).save_to_disk(str(tmp_path / 'saved'))
    read = HuggingFaceDataset(str(tmp_path / 'saved'), label_column='bird')
    assert read.metainfo['classes'] == ('0', '1', '2')
    assert [read.get_data_info(i)['gt_label'] for i in range(3)] == [0, 2, 1]
    few = dict(label_column='bird', classes=['a', 'b'])
    with pytest.raises(ValueError, match=r"saved\[train\]\[1\]: column 'bird' is 2\.0, none"):
        HuggingFaceDataset(str(tmp_path / 'saved'), **few)


# By path --------------------------------------------------------------------------------------


def built(source):
    return [len(DATASETS.build(part)) for part in (source.train, source.val, source.test)]


@pytest.mark.slow
def test_what_a_path_means(birds, saved, tmp_path):
    half = 0.5  # of six pictures
    assert built(source_of(birds, half)) == [3, 3, 3]
    for split in ('train', 'validation'):
        (tmp_path / 'splits' / split).mkdir(parents=True)
        (tmp_path / 'splits' / split / 'robin').symlink_to(birds / 'robin')
    assert built(source_of(tmp_path / 'splits', half)) == [2, 2, 2]
    (tmp_path / 'splits' / 'validation').rename(tmp_path / 'splits' / 'test')
    assert built(source_of(tmp_path / 'splits', half)) == [1, 1, 2]

    rows = table(birds, tmp_path)
    rows[1:] = [[str(birds / image), label] for image, label in rows[1:]]
    assert built(source_of(write(tmp_path / 'birds.csv', rows), half)) == [3, 3, 3]

    (tmp_path / 'tars').mkdir()
    for split in ('train', 'val'):
        shard(tmp_path / 'tars' / f'{split}-0.tar', samples(birds, str))
    assert built(source_of(tmp_path / 'tars', half)) == [6, 6, 6]
    assert built(source_of(tmp_path / 'tars' / 'train-*.tar', half)) == [3, 3, 3]
    assert built(source_of(saved, half)) == [3, 3, 2]


def link(root, birds, *folders):
    """Folders that are links to all classes or, with a dot behind the name, to the first one."""
    root.mkdir()
    for folder in folders:
        name = folder.removesuffix('.')
        (root / name).symlink_to(birds / CLASSES[0] if name != folder else birds)
    return root


def test_splits_by_all_their_names(birds, tmp_path, told):
    source = source_of(link(tmp_path / 'a', birds, 'Training', 'dev', 'testing'))
    assert [part['data_prefix'] for part in source[1:]] == ['Training', 'dev', 'testing']
    source = source_of(link(tmp_path / 'b', birds, 'train', 'val', 'trainval'))  # both once more
    assert [part['data_prefix'] for part in source[1:]] == ['train', 'val', 'val']
    source = source_of(link(tmp_path / 'c', birds, 'trainval', 'test'))
    assert [part['data_prefix'] for part in source[1:]] == ['trainval', 'trainval', 'test']
    (message,) = told
    assert message.startswith(
        f'{tmp_path / "b"}: ignored trainval, which is train and val once more'
    )


def test_what_lies_beside_splits_is_told(birds, tmp_path, told):
    root = link(tmp_path / 'data', birds, 'train', 'holdout', 'more.')
    (root / 'labels').mkdir()  # which has no pictures
    source_of(root)
    assert told[0].startswith(f'{root}: ignored holdout, more, which are no splits; they are calle')
    root = tmp_path / 'tars'
    root.mkdir()
    for name in ('train', 'extra'):
        shard(root / f'{name}-0.tar', samples(birds, str))
    source_of(root)
    assert told[1].startswith(f'{root}: ignored extra, which are no splits')
    (root / 'train-0.tar').rename(root / 'test-0.tar')
    with pytest.raises(ValueError, match=r'has \.tar files of extra, test, but none of train'):
        source_of(root)


def test_classes_that_sound_like_splits_and_have_folders_are_told(birds, tmp_path, told):
    for number, names in enumerate((['train2017', 'val2017'], ['seg_train', 'Test-Set', 'more'])):
        root = link(tmp_path / str(number), birds, *names)
        assert 'data_prefix' not in source_of(root).train
        taken = ', '.join(names[:2] if number == 0 else ['Test-Set', 'seg_train'])
        assert told[number].startswith(f'{root}: took {taken} as folders of a class each')
    source_of(link(tmp_path / 'flat', birds, 'test_tubes.', 'trains'))
    assert len(told) == 2


def test_classes_that_are_called_as_splits_are(birds, tmp_path, told):
    for number, names in enumerate(
        (['bus', 'car', 'train'], ['bus', 'test'], ['bus', 'dev', 'val'])
    ):
        root = link(tmp_path / str(number), birds, *(f'{name}.' for name in names))
        train = DATASETS.build({**source_of(root).train, 'hold_out': 0})
        assert train.metainfo['classes'] == tuple(names)
    assert not told
    flat = link(tmp_path / 'flat', birds, 'train.', 'test.')  # which nobody wants to tell apart
    with pytest.raises(ValueError, match='flat/train: there are no pictures in folders of classes'):
        DATASETS.build(source_of(flat).train)
    lacking = link(tmp_path / 'lacking', birds, 'images', 'test')
    with pytest.raises(ValueError, match='lacking: has images, test, but no folder train'):
        source_of(lacking)


def test_the_split_column_of_a_table(tmp_path, told):
    def source(*splits, column='split'):
        lines = [[f'{i}.png', 'robin', split] for i, split in enumerate(splits)]
        file = tmp_path / 'birds.csv'
        return source_of(write(file, [['image', 'label', column], *lines]), 0.5)

    assert built(source('train', 'train', 'test', 'validation')) == [2, 1, 1]
    assert built(source('Train', 'Train', 'test', column='Split')) == [1, 1, 1]
    assert built(source('a', 'b', column='fold')) == [1, 1, 1]
    assert not told
    assert built(source('train', 'trainval', 'val', 'trainval')) == [1, 1, 1]
    assert f'{tmp_path / "birds.csv"}: ignored 2 lines of split=trainval, which is' in told[0]
    with pytest.raises(ValueError, match=r"birds\.csv, line 3: split='tset' is no split"):
        source('train', 'tset', 'test', 'tset')
    with pytest.raises(ValueError, match='but no train'):
        source('val', 'test')
    with pytest.raises(ValueError, match=r'birds\.csv: val and valid both name the split val'):
        source('train', 'val', 'valid')


def test_mistakes_of_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        source_of(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='no folders of classes'):
        source_of(tmp_path)
    (tmp_path / 'val').mkdir()
    with pytest.raises(ValueError, match='no folder train'):
        source_of(tmp_path)
    (tmp_path / 'x.txt').touch()
    with pytest.raises(ValueError, match=r'x\.txt'):
        source_of(tmp_path / 'x.txt')
