"""The cache gives the same images as no cache, decodes each once, and is shared by workers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from vtab_tree import make_vtab_tree

from gleam_mm.datasets import VTAB1K, CacheError, ImageCache

SIZE = 24


def pipeline(size=SIZE, random=False):
    steps = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='Resize', scale=(size, size), backend='pillow', interpolation='bicubic'),
    ]
    if random:
        steps.append(dict(type='RandomFlip', prob=0.5, direction='horizontal'))
    return [*steps, dict(type='PackInputs')]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_vtab_tree(tmp_path_factory.mktemp('vtab'), ['cifar', 'dtd'], size=16)


def keep(batch):
    return batch


def loader(dataset, **options):
    return DataLoader(dataset, batch_size=3, collate_fn=keep, **options)


def pixels(batches):
    items = [item for batch in batches for item in batch]
    items.sort(key=lambda item: item['data_samples'].sample_idx)
    return torch.stack([item['inputs'] for item in items])


def test_images_and_their_records_are_the_same(root):
    plain = VTAB1K('cifar', 'train800', str(root), pipeline=pipeline())
    cached = VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=pipeline())
    for _ in range(2):
        for index in range(len(plain)):
            ours, theirs = cached[index], plain[index]
            assert torch.equal(ours['inputs'], theirs['inputs'])
            assert ours['data_samples'].metainfo == theirs['data_samples'].metainfo
            assert ours['data_samples'].gt_label == theirs['data_samples'].gt_label


@pytest.mark.parametrize(
    ('context', 'workers', 'persistent'),
    [
        ('fork', 2, False),
        ('fork', 2, True),
        pytest.param('spawn', 1, True, marks=pytest.mark.slow),
    ],
)
def test_workers_share_what_they_decode(context, workers, persistent, tmp_path):
    make_vtab_tree(tmp_path, ['dtd'], size=16)
    dataset = VTAB1K('dtd', 'train800', str(tmp_path), cache=True, pipeline=pipeline())
    expected = pixels([[dataset[index] for index in range(len(dataset))]])
    dataset = VTAB1K('dtd', 'train800', str(tmp_path), cache=True, pipeline=pipeline())
    batches = loader(
        dataset,
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=persistent,
    )
    assert torch.equal(pixels(batches), expected)
    assert dataset._image_cache.filled == len(dataset)  # by the workers, seen here
    for image in (tmp_path / 'dtd' / 'images' / 'train800').iterdir():
        image.unlink()  # from now on only memory has them
    for _ in range(2):
        assert torch.equal(pixels(batches), expected)


def test_a_word_does_not_turn_it_on(root):
    with pytest.raises(ValueError, match="cache='no': choose True or False"):
        VTAB1K('cifar', 'train800', str(root), cache='no', pipeline=pipeline())


def test_what_is_random_stays_random(root):
    dataset = VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=pipeline(random=True))
    plain = VTAB1K('cifar', 'train800', str(root), pipeline=pipeline())[0]['inputs']
    drawn = {dataset[0]['inputs'].numpy().tobytes() for _ in range(40)}
    assert drawn == {plain.numpy().tobytes(), plain.flip(-1).numpy().tobytes()}


def test_images_are_the_callers_own(root):
    def spoil(data):
        data['img'][:] = 0
        return data

    steps = [*pipeline()[:2], spoil]
    dataset = VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=steps)
    dataset[1]
    dataset[1]
    assert dataset._image_cache.get(dataset.get_data_info(1)['img_path'], None)['img'].any()


def test_subsets_share_the_memory_and_keep_their_images(root):
    dataset = VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=pipeline())
    subset = dataset.get_subset([5, 2])
    assert subset._image_cache is dataset._image_cache
    assert torch.equal(subset[0]['inputs'], dataset[5]['inputs'])
    few = VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=pipeline(), indices=3)
    assert few._image_cache.nbytes < dataset._image_cache.nbytes / 2


def test_equal_paths_share_a_place():
    made = []

    def make(key):
        made.append(key)
        return {'img': np.full((2, 2, 3), len(made), np.uint8), 'ori_shape': (2, 2)}

    cache = ImageCache(['a', 'b', 'a'], make)
    assert [cache.get(key, make)['img'][0, 0, 0] for key in ('b', 'a', 'b', 'a')] == [2, 3, 2, 3]
    assert cache.filled == 2
    assert cache.get('a', make)['ori_shape'] == (2, 2)


def test_memory_is_little_more_than_the_pixels(root):
    dataset = VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=pipeline(224))
    pixels = len(dataset) * 224 * 224 * 3
    assert pixels < dataset._image_cache.nbytes < 1.01 * pixels


def test_images_of_several_sizes_are_refused(root, tmp_path):
    make_vtab_tree(tmp_path, ['cifar'], size=16)
    image = tmp_path / 'cifar' / 'images' / 'train800' / '000003.jpg'
    Image.new('RGB', (20, 12)).save(image)
    steps = [pipeline()[0], dict(type='PackInputs')]
    dataset = VTAB1K('cifar', 'train800', str(tmp_path), cache=True, pipeline=steps)
    with pytest.raises(CacheError, match=r'000003.jpg is \(12, 20, 3\) where the first .* Resize'):
        dataset[3]


def test_a_pipeline_that_cannot_be_cached_is_refused(root):
    with pytest.raises(CacheError, match='begins with nothing that can be cached'):
        VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=[dict(type='PackInputs')])
    steps = [dict(type='LoadImageFromFile', to_float32=True), *pipeline()[2:]]
    with pytest.raises(CacheError, match=r'keeps uint8 images .*, but .* float32'):
        VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=steps)


def test_too_little_shared_memory_is_told_and_does_without(root, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr('shutil.disk_usage', lambda path: Usage)
    with pytest.raises(CacheError, match=r'shared memory .* --shm-size'):
        ImageCache(['a'], lambda key: {'img': np.zeros((64, 64, 3), np.uint8)})
    dataset = VTAB1K('cifar', 'train800', str(root), cache=True, pipeline=pipeline())
    assert dataset._image_cache is None
    assert dataset[0]['inputs'].shape == (3, SIZE, SIZE)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/dev/shm').is_dir(), reason='no /dev/shm to look at')
def test_nothing_is_left_behind_by_sigkill(root, tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(
        'import json, os, signal, gleam_mm\n'
        'from mmengine.registry import DefaultScope\n'
        'from gleam_mm.datasets import VTAB1K\n'
        "with DefaultScope.overwrite_default_scope('gleam_mm'):\n"
        f"    dataset = VTAB1K('cifar', 'train800', {str(root)!r}, cache=True, "
        f'pipeline={pipeline()!r})\n'
        'dataset[0]\n'
        "print(json.dumps(os.listdir('/dev/shm')), flush=True)\n"
        'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    before = set(os.listdir('/dev/shm'))  # noqa: PTH208
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    mine = {name for name in json.loads(done.stdout) if name not in before and 'torch' in name}
    assert not mine  # the memory has no name even while it is used
