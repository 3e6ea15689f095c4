"""Layouts are built losslessly from what users have, and an interruption costs nothing."""

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gleam_mm.datasets import VTAB1K, FewShotFGVC
from gleam_mm.datasets.choose import few_of_each, stratified
from gleam_mm.prepare.build import build, build_published, find_published
from gleam_mm.prepare.origins import (
    clevr_count,
    clevr_distance,
    kitti_distance,
    sixteenth,
)
from gleam_mm.prepare.plan import plan_fgvc, plan_vtab
from gleam_mm.prepare.sources import open_folder, open_huggingface, open_torchvision
from gleam_mm.prepare.verify import verify

SOURCE = {'kind': 'folder', 'path': 'here'}


def picture(seed, size=(7, 5)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def class_folders(root, classes, each, start=0):
    for label in range(classes):
        folder = root / f'class {label:02}'
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(each):  # the same names in every split
            picture(start + label * 100 + index).save(folder / f'{index}.png')


@pytest.fixture
def dtd(tmp_path):
    """DTD's 47 classes, three training images and one test image each."""
    class_folders(tmp_path / 'dtd' / 'train', 47, 3)
    class_folders(tmp_path / 'dtd' / 'test', 47, 1, start=50)
    return tmp_path / 'dtd'


def lines(file):
    return [line.rsplit(maxsplit=1) for line in file.read_text().splitlines()]


# Choosing ----------------------------------------------------------------------------------------


def test_a_stratified_choice_is_disjoint_proportional_and_seeded():
    labels = [0] * 600 + [1] * 300 + [2] * 100
    first, second = stratified(labels, [100, 50], seed=3)
    assert not set(first) & set(second)
    for part, counts in ((first, (60, 30, 10)), (second, (30, 15, 5))):
        assert len(part) == sum(counts)
        for label, count in enumerate(counts):
            assert abs(sum(labels[index] == label for index in part) - count) <= 1
    assert stratified(labels, [100, 50], seed=3) == [first, second]
    assert stratified(labels, [100, 50], seed=4) != [first, second]
    with pytest.raises(ValueError, match='1,001 images are needed, but there are only 1,000'):
        stratified(labels, [1001], seed=0)


def test_few_of_each_class():
    labels = [0, 1, 2] * 10
    chosen = few_of_each(labels, 4, seed=0)
    assert sorted(labels[index] for index in chosen) == [0] * 4 + [1] * 4 + [2] * 4
    assert len(set(chosen)) == 12
    with pytest.raises(ValueError, match='class 0 has 10 images, fewer than 11'):
        few_of_each(labels, 11, seed=0)


# Labels, against the definitions of the benchmark written out ------------------------------------


def test_labels_of_structured_tasks():
    assert [clevr_count(objects) for objects in (3, 10)] == [0, 7]
    for distance, label in ((7.9, 0), (8.2, 1), (8.7, 2), (9.1, 3), (9.8, 4), (12.0, 5)):
        assert clevr_distance([20.0, distance, 15.0]) == label
    for distance, label in ((-3.0, 0), (7.9, 0), (8.1, 1), (19.9, 1), (20.1, 2), (90.0, 2)):
        assert kitti_distance([distance, 95.0]) == label
    assert kitti_distance([]) == 3
    # 32 positions in pairs; 40 orientations, 2 or 3 to a class.
    assert [sixteenth(value, 32) for value in range(32)] == [value // 2 for value in range(32)]
    orientations = [sixteenth(value, 40) for value in range(40)]
    assert orientations == [int(value / 2.5) for value in range(40)]
    assert set(orientations) == set(range(16))


# Building ----------------------------------------------------------------------------------------


def test_a_folder_becomes_vtab(dtd, tmp_path):
    pools = open_folder('dtd', dtd)
    plan = plan_vtab('dtd', pools, SOURCE, sizes=(94, 47, 47))
    assert build(plan, tmp_path / 'out')
    out = tmp_path / 'out' / 'dtd'
    originals = {
        np.asarray(Image.open(file)).tobytes(): int(file.parent.name.split()[1])
        for file in dtd.rglob('*.png')
    }
    seen = {}
    for split, size in (('train800', 94), ('val200', 47), ('train800val200', 141), ('test', 47)):
        listed = lines(out / f'{split}.txt')
        assert len(listed) == size
        assert listed[0][0] == f'images/{split}/000000.png'
        pixels = [np.asarray(Image.open(out / path)).tobytes() for path, _ in listed]
        assert [originals[image] for image in pixels] == [int(label) for _, label in listed]
        assert len(set(pixels)) == size
        seen[split] = pixels
    assert seen['train800'] + seen['val200'] == seen['train800val200']
    assert not set(seen['train800val200']) & set(seen['test'])
    reports = list(verify('vtab-1k', tmp_path / 'out', ['dtd'], decode=True, any_size=True))
    assert not any(checked.faults or checked.warnings for checked in reports)
    assert {checked.choice for checked in reports} == {'seeded-stratified'}
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['official'] is False
    assert 'NOT the images of VTAB-1K' in manifest['note']
    assert "The test split is the source's own." in manifest['note']
    assert len(VTAB1K('dtd', 'test', str(tmp_path / 'out'))) == 47
    assert not build(plan, tmp_path / 'out')  # finished


def test_without_a_test_split_one_is_chosen(tmp_path):
    class_folders(tmp_path / 'eurosat', 10, 6)
    plan = plan_vtab(
        'eurosat', open_folder('eurosat', tmp_path / 'eurosat'), SOURCE, 0, (20, 10, 30)
    )
    assert 'The test split is chosen in the same way.' in plan.manifest['note']
    names = [
        item.name
        for split in ('train800', 'val200', 'test')
        for item in plan.lists[f'{split}.txt'].items()
    ]
    assert len(names) == len(set(names)) == 60


@pytest.mark.parametrize('moment', [0, 20, 94, 150, 188])
def test_an_interrupted_build_leaves_no_lists_and_goes_on(moment, dtd, tmp_path, monkeypatch):
    plan = plan_vtab('dtd', open_folder('dtd', dtd), SOURCE, sizes=(94, 47, 47))
    whole = tmp_path / 'whole'
    build(plan, whole)

    replaced = []
    replace = Path.replace

    def interrupted(path, target):
        if path.suffix == '.png':
            if len(replaced) == moment:
                raise KeyboardInterrupt
            replaced.append(target)
        return replace(path, target)

    out = tmp_path / 'out'
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(plan, out, workers=1)
    there = [file.name for file in (out / 'dtd').rglob('*') if file.is_file()]
    assert not any(name.endswith('.txt') or name == 'manifest.json' for name in there)
    assert not any(name.startswith('.writing') for name in there)
    with pytest.raises(FileNotFoundError):
        VTAB1K('dtd', 'train800', str(out))
    if replaced:  # what a power cut may leave of the last file
        Path(replaced[-1]).write_bytes(b'')
    assert build(plan, out)
    for file in sorted(whole.rglob('*')):
        if file.is_file():
            assert (out / file.relative_to(whole)).read_bytes() == file.read_bytes()
    assert len(list(out.rglob('*'))) == len(list(whole.rglob('*')))


def test_other_options_do_not_mix_with_what_is_there(dtd, tmp_path):
    pools = open_folder('dtd', dtd)
    build(plan_vtab('dtd', pools, SOURCE, 0, (94, 47, 47)), tmp_path)
    other = plan_vtab('dtd', pools, SOURCE, 1, (94, 47, 47))
    with pytest.raises(ValueError, match=r'was prepared from another source or with other options'):
        build(other, tmp_path)
    (tmp_path / 'dtd' / 'manifest.json').unlink()
    with pytest.raises(ValueError, match='holds lists already that were not made by this tool'):
        build(other, tmp_path)


def test_an_unreadable_image_is_named(dtd, tmp_path):
    for file in (dtd / 'train' / 'class 07').iterdir():
        file.write_bytes(file.read_bytes()[:60])
    plan = plan_vtab('dtd', open_folder('dtd', dtd), SOURCE, sizes=(94, 47, 47))
    with pytest.raises(OSError, match=r'train/class 07/\d+.png of the source cannot be read'):
        build(plan, tmp_path / 'out')
    assert not list((tmp_path / 'out').rglob('*.txt'))


def test_too_small_a_source_and_labels_out_of_range_are_told(dtd, tmp_path):
    pools = open_folder('dtd', dtd)
    with pytest.raises(ValueError, match='dtd: the train split of the source: 1,000 images are'):
        plan_vtab('dtd', pools, SOURCE)
    with pytest.raises(ValueError, match=r'has label 4, but the task has 4 classes'):
        plan_vtab('kitti', pools, SOURCE)


# Sources -----------------------------------------------------------------------------------------


def test_official_split_files_of_a_folder(tmp_path):
    class_folders(tmp_path / 'images', 3, 4)
    names = sorted(str(file.relative_to(tmp_path / 'images')) for file in tmp_path.rglob('*.png'))
    (tmp_path / 'train.txt').write_text('\n'.join(names[:9]))  # the class is the folder
    (tmp_path / 'test.txt').write_text('\n'.join(f'{name} 2' for name in names[9:]))
    lists = {split: tmp_path / f'{split}.txt' for split in ('train', 'test')}
    pools = open_folder('dtd', tmp_path / 'images', lists)
    assert list(pools['train'].labels) == [0] * 4 + [1] * 4 + [2]
    assert list(pools['test'].labels) == [2] * 3
    (tmp_path / 'test.txt').write_text('class 00/0.png 0\nclass 00/nothing.png 0\n')
    with pytest.raises(ValueError, match=r'test.txt, line 2: .*nothing.png does not exist'):
        open_folder('dtd', tmp_path / 'images', lists)


def test_clevr_is_read_as_distributed(tmp_path):
    for split, counts in (('train', (3, 10)), ('val', (4,))):
        (tmp_path / 'scenes').mkdir(exist_ok=True)
        (tmp_path / 'images' / split).mkdir(parents=True)
        scenes = []
        for index, count in enumerate(counts):
            name = f'CLEVR_{split}_{index:06}.png'
            picture(index).save(tmp_path / 'images' / split / name)
            things = [{'pixel_coords': [1, 2, 9.2 + number]} for number in range(count)]
            scenes.append({'image_filename': name, 'objects': things})
        file = tmp_path / 'scenes' / f'CLEVR_{split}_scenes.json'
        file.write_text(json.dumps({'scenes': scenes}))
    pools = open_folder('clevr_count', tmp_path)
    assert (list(pools['train'].labels), list(pools['test'].labels)) == ([0, 7], [1])
    assert list(open_folder('clevr_dist', tmp_path)['train'].labels) == [3, 3]
    assert pools['test'].load(0).size == (5, 7)


def test_kitti_is_read_as_distributed(tmp_path):
    rows = {
        '000000': 'Car 0.00 0 -1.5 1 2 3 4 1.5 1.6 3.7 -2.0 1.6 12.5 -1.6\n'
        'Pedestrian 0.00 0 -0.2 1 2 3 4 1.8 0.5 1.2 1.8 1.5 4.0 0.01\n',
        '000001': 'Cyclist 0.00 0 -0.2 1 2 3 4 1.8 0.5 1.2 1.8 1.5 4.0 0.01\n',
        '000002': 'Truck 0 0 0 1 2 3 4 2 2 9 1 1 69.4 0\nVan 0 0 0 1 2 3 4 2 2 4 1 1 3.5 0\n',
    }
    for folder in ('image_2', 'label_2'):
        (tmp_path / 'training' / folder).mkdir(parents=True)
    for name, text in rows.items():
        picture(1).save(tmp_path / 'training' / 'image_2' / f'{name}.png')
        (tmp_path / 'training' / 'label_2' / f'{name}.txt').write_text(text)
    assert list(open_folder('kitti', tmp_path)['train'].labels) == [1, 3, 0]


def test_dsprites_is_read_as_distributed(tmp_path):
    latents = np.zeros((3, 6), np.int64)
    latents[:, 3] = (0, 20, 39)
    latents[:, 4] = (31, 16, 1)
    images = np.random.default_rng(0).integers(0, 2, (3, 64, 64), dtype=np.uint8)
    file = tmp_path / 'dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz'
    np.savez(file, imgs=images, latents_classes=latents, metadata=np.array({'a': 1}, dtype=object))
    assert list(open_folder('dsprites_loc', tmp_path)['train'].labels) == [15, 8, 0]
    pool = open_folder('dsprites_ori', file)['train']
    assert list(pool.labels) == [0, 8, 15]
    assert np.array_equal(np.asarray(pool.load(2)), images[2] * 255)


def test_a_torchvision_copy(tmp_path):
    images = tmp_path / 'oxford-iiit-pet' / 'images'
    annotations = tmp_path / 'oxford-iiit-pet' / 'annotations'
    images.mkdir(parents=True)
    annotations.mkdir()
    for split, names in (('trainval', ('Cat_2', 'Cat_1', 'Dog_1')), ('test', ('Dog_9',))):
        rows = [f'{name} {1 if name.startswith("Cat") else 2} 1 1' for name in names]
        (annotations / f'{split}.txt').write_text('\n'.join(rows) + '\n')
        for index, name in enumerate(names):
            picture(index).save(images / f'{name}.jpg')
    pools = open_torchvision('oxford_iiit_pet', tmp_path)
    assert list(pools['train'].labels) == [0, 0, 1]
    assert [Path(pools['train'].name(index)).stem for index in range(3)] == [
        'Cat_1',
        'Cat_2',
        'Dog_1',
    ]
    assert list(pools['test'].labels) == [1]
    with pytest.raises(FileNotFoundError, match='torchvision finds no DTD there'):
        open_torchvision('dtd', tmp_path)
    with pytest.raises(ValueError, match='dmlab cannot be read from a torchvision copy'):
        open_torchvision('dmlab', tmp_path)


def fill(folder, names):
    """Writes a picture under each name; its seed is the place in the list."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(folder / name)


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def dtd_copy(root):
    fill(root / 'dtd/dtd/images', ['a/a_1.jpg', 'b/b_1.jpg', 'b/b_2.jpg'])
    lists = {'train': 'a/a_1.jpg\nb/b_2.jpg', 'val': 'a/a_1.jpg', 'test': 'b/b_1.jpg'}
    for split, text in lists.items():
        write(root / f'dtd/dtd/labels/{split}1.txt', text + '\n')
    return 'dtd', {'train': [0, 1], 'val': [0], 'test': [0]}


def food_copy(root):
    fill(root / 'food-101/images', ['pie/2.jpg', 'pie/1.jpg', 'soup/7.jpg'])
    write(root / 'food-101/meta/train.json', json.dumps({'soup': ['soup/7'], 'pie': ['pie/2']}))
    write(root / 'food-101/meta/test.json', json.dumps({'pie': ['pie/1']}))
    return 'food-101', {'train': [0, 1], 'test': [0]}


def aircraft_copy(root):
    data = root / 'fgvc-aircraft-2013b/data'
    fill(data / 'images', ['11.jpg', '12.jpg', '13.jpg'])
    write(data / 'variants.txt', '707-320\nA 300B4\n')
    for split, text in (('train', '12 A 300B4\n11 707-320'), ('val', '13 A 300B4'), ('test', '')):
        write(data / f'images_variant_{split}.txt', text)
    return 'fgvc_aircraft', {'train': [0, 1], 'val': [1], 'test': []}


def sun_copy(root):
    fill(root / 'SUN397', ['a/abbey/sun_b.jpg', 'a/abbey/sun_a.jpg', 'b/bar/indoor/sun_c.jpg'])
    write(root / 'SUN397/ClassName.txt', '/a/abbey\n/b/bar/indoor\n')
    return 'sun397', {'train': [0, 0, 1]}


def flowers_copy(root):
    folder = root / 'flowers-102'
    fill(folder / 'jpg', [f'image_{number:05}.jpg' for number in (1, 2, 3, 4)])
    savemat(folder / 'setid.mat', {'trnid': [4, 1], 'valid': [2, 2], 'tstid': [3, 3]})
    savemat(folder / 'imagelabels.mat', {'labels': [77, 1, 102, 5]})
    return 'oxford_flowers102', {'train': [76, 4], 'val': [0, 0], 'test': [101, 101]}


def svhn_copy(root):
    for split, digits in (('train', [10, 3]), ('test', [9, 10])):
        pixels = np.stack([np.asarray(picture(seed, (32, 32))) for seed in range(2)], axis=3)
        savemat(root / f'{split}_32x32.mat', {'X': pixels, 'y': np.uint8(digits)[:, None]})
    return 'svhn', {'train': [0, 3], 'test': [9, 0]}


def cifar_copy(root):
    folder = root / 'cifar-100-python'
    folder.mkdir()
    for split, labels in (('train', [99, 4]), ('test', [7])):
        pixels = [np.asarray(picture(seed, (32, 32))) for seed in range(len(labels))]
        flat = np.stack([image.transpose(2, 0, 1).reshape(-1) for image in pixels])
        (folder / split).write_bytes(pickle.dumps({'data': flat, 'fine_labels': labels}))
    (folder / 'meta').write_bytes(pickle.dumps({'fine_label_names': list(map(str, range(100)))}))
    return 'cifar', {'train': [99, 4], 'test': [7]}


@pytest.mark.parametrize(
    'make',
    [dtd_copy, food_copy, aircraft_copy, sun_copy, flowers_copy, svhn_copy, cifar_copy],
)
def test_other_torchvision_copies(make, tmp_path, monkeypatch):
    for module in ('cifar', 'svhn', 'flowers102'):  # which compare checksums of the originals
        name = f'torchvision.datasets.{module}.check_integrity'
        monkeypatch.setattr(name, lambda *arguments: True)
    task, labels = make(tmp_path)
    pools = open_torchvision(task, tmp_path)
    assert {split: list(pool.labels) for split, pool in pools.items()} == labels
    names = [pool.name(i) for split, pool in pools.items() for i in range(len(labels[split]))]
    files = make not in (svhn_copy, cifar_copy)
    assert files == all((tmp_path / name).is_file() for name in names)
    image = pools['train'].load(0)
    if files:
        assert image.size == (5, 7)
    else:  # pixels, not files: exactly those
        assert np.array_equal(np.asarray(image), np.asarray(picture(0, (32, 32))))


@pytest.mark.parametrize('form', ['arrow', 'parquet'])
def test_a_hugging_face_copy(form, tmp_path):
    datasets = pytest.importorskip('datasets', reason="needs the 'datasets' extra")
    features = datasets.Features(
        {'img': datasets.Image(), 'fine_label': datasets.ClassLabel(num_classes=100)}
    )
    splits = datasets.DatasetDict()
    for split, number in (('train', 5), ('test', 2)):
        pictures = [picture(index) for index in range(number)]
        if split == 'test':
            pictures[1] = None
        rows = {'img': pictures, 'fine_label': [99 - index for index in range(number)]}
        splits[split] = datasets.Dataset.from_dict(rows, features)
    if form == 'arrow':
        splits.save_to_disk(str(tmp_path / 'copy'))
    else:
        (tmp_path / 'copy' / 'data').mkdir(parents=True)
        for split, rows in splits.items():
            rows.to_parquet(str(tmp_path / 'copy' / 'data' / f'{split}-00000-of-00001.parquet'))
    pools = open_huggingface(tmp_path / 'copy')
    assert list(pools['train'].labels) == [99, 98, 97, 96, 95]
    assert pools['test'].name(1) == 'test[1]'
    assert np.array_equal(np.asarray(pools['train'].load(3)), np.asarray(picture(3)))
    with pytest.raises(ValueError, match='the row has no picture'):
        pools['test'].load(1)
    with pytest.raises(ValueError, match=r'set --label-column to one of: img, fine_label'):
        open_huggingface(tmp_path / 'copy', label_column='coarse')
    with pytest.raises(ValueError, match='neither what save_to_disk writes'):
        (tmp_path / 'empty').mkdir()
        open_huggingface(tmp_path / 'empty')


def test_the_extra_of_a_hugging_face_copy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ImportError, match=r"the 'datasets' extra.* 'gleam-mm\[datasets\]'"):
        open_huggingface(tmp_path)


# Few-shot ----------------------------------------------------------------------------------------


def test_published_lists_are_taken_as_they_are(tmp_path):
    published = tmp_path / 'lists' / 'oxford-pets' / 'annotations'
    published.mkdir(parents=True)
    source = tmp_path / 'torch' / 'oxford-iiit-pet' / 'images'
    source.mkdir(parents=True)
    texts = {
        'train_meta.list.num_shot_1.seed_0': 'Abyssinian_1.jpg 0\nAbyssinian_1.jpg 0\n',
        'val_meta.list': 'Birman_1.jpg 5\n',
        'test_meta.list': 'Boxer_1.jpg 36\n',
    }
    for name, text in texts.items():
        (published / name).write_text(text)
        picture(len(text)).save(source / text.split()[0], quality=80)
    found = find_published('oxford_pets', tmp_path / 'lists', tmp_path / 'torch')
    assert build_published(found, tmp_path / 'out')
    assert not build_published(found, tmp_path / 'out')
    out = tmp_path / 'out' / 'oxford_pets'
    for name, text in texts.items():
        assert (out / 'annotations' / name).read_text() == text
    for image in source.iterdir():
        assert (out / 'images' / image.name).read_bytes() == image.read_bytes()
    assert json.loads((out / 'manifest.json').read_text())['choice'] == 'published-lists'
    reports = verify('fgvc', tmp_path / 'out', ['pets'], any_size=True)
    assert [checked.choice for checked in reports] == ['published-lists'] * 3
    assert len(FewShotFGVC('pets', 1, 0, data_root=str(tmp_path / 'out'))) == 2
    (source / 'Birman_1.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'val_meta.list, line 1: .*Birman_1.jpg does not'):
        find_published('oxford_pets', tmp_path / 'lists', tmp_path / 'torch')


@pytest.mark.parametrize('name', ['../../evil.jpg', 'a/../../../evil.jpg', '{tmp_path}/evil.jpg'])
def test_published_lists_write_nothing_outside_of_the_folder(name, tmp_path):
    name = name.format(tmp_path=tmp_path)
    lists, source = tmp_path / 'lists', tmp_path / 'a' / 'source'
    for folder in (lists, source / 'a'):
        folder.mkdir(parents=True)
    picture(0).save(tmp_path / 'evil.jpg')
    picture(1).save(source / 'cat.jpg')
    (lists / 'train_meta.list.num_shot_1.seed_0').write_text(f'cat.jpg 0\n{name} 1\n')
    for split in ('val', 'test'):
        (lists / f'{split}_meta.list').write_text('cat.jpg 0\n')
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match=r'num_shot_1.seed_0, line 2: .*evil.jpg. leads out of'):
        build_published(find_published('oxford_pets', lists, source), tmp_path / 'out')
    assert sorted(tmp_path.rglob('*')) == before
    with pytest.raises(ValueError, match=r'line 2: .*evil.jpg 1. leads out of'):
        open_folder('oxford_pets', source, {'train': lists / 'train_meta.list.num_shot_1.seed_0'})


def test_grey_pictures_of_16_bits_keep_their_brightness(tmp_path):
    for label in range(4):
        folder = tmp_path / 'kitti' / f'class {label}'
        folder.mkdir(parents=True)
        for index in range(6):
            pixels = np.full((4, 4), 1000 * label + 100 * index, np.uint16)
            pixels[0] = 60000
            Image.fromarray(pixels).save(folder / f'{index}.png')
    pools = open_folder('eurosat', tmp_path / 'kitti')
    build(plan_vtab('eurosat', pools, SOURCE, 0, (8, 4, 12)), tmp_path / 'out')
    for path, label in lines(tmp_path / 'out/eurosat/test.txt'):
        pixels = np.asarray(Image.open(tmp_path / 'out/eurosat' / path))
        assert (pixels[0] == 60000 >> 8).all()
        assert any((pixels[1:] == 1000 * int(label) + 100 * i >> 8).all() for i in range(6))


def test_hidden_folders_and_pipes_are_no_source(tmp_path):
    class_folders(tmp_path / 'source', 3, 2)
    for hidden in ('.ipynb_checkpoints', '__MACOSX', 'class 01/.thumbnails'):
        (tmp_path / 'source' / hidden).mkdir()
        picture(0).save(tmp_path / 'source' / hidden / '1.png')
    os.mkfifo(tmp_path / 'source' / 'class 00' / 'pipe.png')
    assert open_folder('eurosat', tmp_path / 'source')['train'].labels == [0, 0, 1, 1, 2, 2]
    (tmp_path / 'list.txt').write_text('\ufeffclass 02/1.png\nclass 00/0.png\n', encoding='utf-8')
    pools = open_folder('eurosat', tmp_path / 'source', {'train': tmp_path / 'list.txt'})
    assert pools['train'].labels == [2, 0]


def test_splits_by_their_other_names_and_classes_that_are_called_so(tmp_path):
    root = tmp_path / 'source'
    for split, number in (('Training', 3), ('dev', 2), ('testing', 1)):
        class_folders(root / split, 2, number)
    pools = open_folder('eurosat', root)
    assert {split: len(pool.labels) for split, pool in pools.items()} == {
        'train': 6,
        'val': 4,
        'test': 2,
    }
    (root / 'valid').symlink_to('dev')
    with pytest.raises(ValueError, match='source: dev and valid both name the split val'):
        open_folder('eurosat', root)
    for name in ('bus', 'train'):
        class_folders(tmp_path / 'vehicles', 1, 2)
        (tmp_path / 'vehicles' / 'class 00').rename(tmp_path / 'vehicles' / name)
    assert open_folder('eurosat', tmp_path / 'vehicles')['train'].labels == [0, 0, 1, 1]


def test_classes_of_all_splits_are_those_of_the_training_by_name(tmp_path):
    for split, classes in (('train', 'abc'), ('val', 'ac'), ('test', 'bc')):
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            picture(0).save(tmp_path / split / name / '0.png')
    pools = open_folder('eurosat', tmp_path)
    found = {split: pool.labels for split, pool in pools.items()}
    assert found == {'train': [0, 1, 2], 'val': [0, 2], 'test': [1, 2]}
    (tmp_path / 'test' / 'd').mkdir()
    with pytest.raises(ValueError, match=r'test: of its 3 .* none of the 3 of training: d'):
        open_folder('eurosat', tmp_path)
    shutil.rmtree(tmp_path / 'train')
    with pytest.raises(ValueError, match='has test, val, but no folder train'):
        open_folder('eurosat', tmp_path)


def test_an_archive_that_claims_more_than_there_is_memory_is_told(tmp_path):
    header = io.BytesIO()
    shape = {'descr': '|u1', 'fortran_order': False, 'shape': (1 << 45,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / 'dsprites.npz', 'w') as archive:
        archive.writestr('imgs.npy', header.getvalue())
    with pytest.raises(ValueError, match=r"dsprites.npz: not dSprites' own file, or a damaged one"):
        open_folder('dsprites_loc', tmp_path)


def test_few_shot_sets_without_published_lists(tmp_path):
    class_folders(tmp_path / 'source' / 'train', 37, 4)
    class_folders(tmp_path / 'source' / 'test', 37, 1, start=50)
    pools = open_folder('oxford_pets', tmp_path / 'source')
    plan = plan_fgvc('oxford_pets', pools, SOURCE, shots=(1, 2), seeds=(0, 1), sizes=(37, 37))
    build(plan, tmp_path / 'out')
    reports = list(verify('fgvc', tmp_path / 'out', ['pets'], decode=True, any_size=True))
    assert [checked.lines for checked in reports] == [37, 37, 74, 74, 37, 37]
    assert not any(checked.faults or checked.warnings for checked in reports)
    dataset = FewShotFGVC(
        'pets',
        2,
        1,
        data_root=str(tmp_path / 'out'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    assert torch.is_tensor(dataset[0]['inputs'])
    assert 'Taken from the training split: val.' in plan.manifest['note']
