"""MiniVTAB's drawn tasks: the same bits everywhere, sound labels, the cache, and the recipes."""

import hashlib
import importlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.engine import fill_num_classes
from gleam_mm.minivtab import MINI_TASKS, MiniVTAB, canvas, tasks
from gleam_mm.minivtab.glyph_sheet import CELL, FONTS, LETTERS, draw_sheet, glyphs
from gleam_mm.registry import MODELS

DRAWN = [name for name in MINI_TASKS if name != 'digits']

# SHA-256 of a task's first 32 images, at 32 and at 64 pixels; first 16 digits.
FIRST_IMAGES = {
    ('textures', 32): '3277ddc28ae2656d',
    ('textures', 64): 'd6f402c38f8e6f0d',
    ('letters', 32): 'e2f407e94129cd87',
    ('letters', 64): 'b1ece3ef3d291823',
    ('cells', 32): '50e96dbf67f759f7',
    ('cells', 64): '1fa4cf6b5a0a5c6b',
    ('land', 32): 'ee980ce77d167c3b',
    ('land', 64): '8482906f3dc7ccdb',
    ('defects', 32): '9c4a938879efebba',
    ('defects', 64): '0f2f8176b85ca4b6',
    ('count', 32): '6e41f93d70673f52',
    ('count', 64): '9a135a3f8afa0d12',
    ('distance', 32): '6e8db5743970e942',
    ('distance', 64): 'be53d8fef39e0df7',
    ('orientation', 32): '2a0bf9fcf5efeab3',
    ('orientation', 64): '6b411b5591354c99',
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv(tasks.CACHE_VARIABLE, str(tmp_path))
    tasks.load.cache_clear()
    yield tmp_path / 'minivtab'
    tasks.load.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    """Images that cost nothing to draw, and a count of how often they were."""
    calls = []

    def draw(labels, streams, size):
        calls.append(len(labels))
        return np.ones((1, size, size, 3)) * canvas.broad(labels / 12, 3)

    monkeypatch.setitem(tasks._DRAW, 'textures', draw)
    monkeypatch.setattr(tasks, 'CHECKSUMS', {})
    monkeypatch.setattr(tasks, 'CHECKSUMS', {})
    return calls


def test_nine_tasks_in_three_groups_of_three():
    groups = [task.group for task in MINI_TASKS.values()]
    assert [groups.count(g) for g in ('natural', 'specialized', 'structured')] == [3, 3, 3]
    assert all(task.num_classes == len(set(task.classes)) for task in MINI_TASKS.values())


@pytest.mark.parametrize('size', [32, 64])
@pytest.mark.parametrize('name', DRAWN)
def test_images_are_the_same_on_every_machine(name, size):
    images = tasks.draw(name, size, np.arange(32))
    assert images.shape == (32, size, size, 3)
    assert hashlib.sha256(images).hexdigest()[:16] == FIRST_IMAGES[name, size]


@pytest.mark.slow
def test_whole_tasks_have_the_checksums_that_are_published():
    """One task, to save time; a task that differs warns wherever it is loaded."""
    assert set(tasks.CHECKSUMS) == {(name, 32) for name in DRAWN}
    images, labels = tasks.load('textures', 32)
    assert hashlib.sha256(images).hexdigest()[:16] == tasks.CHECKSUMS['textures', 32]
    assert len(images) == len(labels) == 3000


@pytest.mark.parametrize('name', DRAWN)
def test_an_image_depends_on_its_index_alone(name):
    together = tasks.draw(name, 32, np.arange(60))
    assert np.array_equal(tasks.draw(name, 32, np.array([41, 7])), together[[41, 7]])
    assert len({image.tobytes() for image in together}) == 60


@pytest.mark.parametrize('name', DRAWN)
def test_another_size_shows_the_same_scene(name):
    """Averages of 2 x 2 pixels come close to the small image, but for the noise."""
    small = tasks.draw(name, 32, np.arange(24)).astype(float)
    large = tasks.draw(name, 64, np.arange(24)).astype(float)
    large = large.reshape(24, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    blurred = [
        images.reshape(24, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(24, -1)
        for images in (small, large)
    ]
    error = np.abs(blurred[0] - blurred[1]).mean(axis=1)
    other = np.abs(blurred[0] - np.roll(blurred[1], 1, axis=0)).mean(axis=1)
    assert np.median(error) < 6 < np.median(other)


def test_splits_hold_every_class_in_proportion(quick):
    parts = {split: MiniVTAB('textures', split) for split in ('train800', 'val200', 'test')}
    assert [len(part) for part in parts.values()] == [800, 200, 2000]
    counts = [np.bincount(part.get_gt_labels(), minlength=12) for part in parts.values()]
    assert (np.sum(counts, axis=0) == 250).all()
    assert all(count.max() - count.min() <= 1 for count in counts)
    info = parts['val200'].get_data_info(3)
    assert (info['img'] == round(info['gt_label'] / 12 * 255)).all()


def test_the_cache_is_read_and_a_damaged_file_is_drawn_again(quick, cache):
    images, _ = tasks.load('textures', 32)
    (file,) = cache.iterdir()
    drawn = sum(quick)
    tasks.load.cache_clear()
    assert np.array_equal(tasks.load('textures', 32)[0], images)
    assert sum(quick) == drawn == 3000
    for damage in (file.read_bytes()[:-7], b'', file.read_bytes()[:-1] + b'\x01'):
        tasks.load.cache_clear()
        file.write_bytes(damage)
        assert np.array_equal(tasks.load('textures', 32)[0], images)
    assert sum(quick) == 4 * 3000
    assert list(cache.iterdir()) == [file]


def test_images_of_an_older_generator_are_drawn_again(quick, cache, monkeypatch):
    _, digest = tasks._make('textures', 32)
    (file,) = cache.iterdir()
    old = np.zeros((3000, 32, 32, 3), np.uint8)
    np.save(file.with_name(f'{tasks._prefix("textures", 32)}{tasks._digest(old)}.npy'), old)
    file.unlink()
    monkeypatch.setattr(tasks, 'CHECKSUMS', {('textures', 32): digest})
    tasks.load.cache_clear()
    assert tasks.load('textures', 32)[0].any()


def test_workers_may_fill_the_cache_at_once(quick, cache):
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda _: tasks._read('textures', 8) or tasks._make('textures', 8), range(4))
        )
    assert len({digest for _, digest in results}) == 1
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_done_without(quick, cache):
    cache.write_text('a file where the folder should be')
    assert len(tasks.load('textures', 32)[0]) == 3000


def test_images_that_differ_from_the_published_ones_are_warned_of(quick, monkeypatch):
    monkeypatch.setattr(tasks, 'CHECKSUMS', {('textures', 32): '0' * 16})
    with pytest.warns(UserWarning, match='results do not compare'):
        tasks.load('textures', 32)


def test_the_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(tasks.CACHE_VARIABLE)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert tasks.cache_folder() == tmp_path / 'gleam-mm' / 'minivtab'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert tasks.cache_folder().parts[-3:] == ('.cache', 'gleam-mm', 'minivtab')


def test_sine_and_cosine():
    turns = np.linspace(-3, 3, 10001)
    assert np.abs(canvas.sin(turns) - np.sin(2 * np.pi * turns)).max() < 1e-7
    assert np.abs(canvas.cos(turns) - np.cos(2 * np.pi * turns)).max() < 1e-7


def test_draws_are_uniform_and_each_image_has_its_own():
    one, two = canvas.Streams(['a', 'b']), canvas.Streams(['b', 'c', 'a'])
    first = one.uniform(2, 4, (2000,))
    assert np.array_equal(first[[1, 0]], two.take(np.array([0, 2])).uniform(2, 4, (2000,)))
    assert not np.array_equal(first[0], first[1])
    assert 2 <= first.min() < 2.01 and 3.99 < first.max() < 4
    assert abs(first.mean() - 3) < 0.05
    order = one.permutation(9)
    assert (np.sort(order, axis=1) == np.arange(9)).all()
    grain = one.grain(5)
    assert grain.shape == (2, 5, 5, 3) and -1 <= grain.min() < grain.max() <= 1


def test_distances():
    x, y = canvas.grid(16)
    start, end = np.array([[-0.5, 0.2]]), np.array([[0.5, 0.2]])
    distance, along = canvas.to_segment(x, y, start, end)
    i, j = 3, 14  # right of the segment: its end is the closest
    assert distance[0, i, j] == pytest.approx(np.hypot(x[0, i, j] - 0.5, y[0, i, j] - 0.2))
    assert along[0, i, j] == 1
    triangle = canvas.polygon(np.array([0.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.9]), 3, 1.0)
    assert triangle == pytest.approx([0.0, -0.5, 0.4], abs=1e-6)  # a corner up, its base below


def test_a_turned_arrow_points_where_the_label_says():
    """Of a picture's 16 directions, its label's makes it look most like an arrow pointing up."""
    structured = importlib.import_module('gleam_mm.minivtab.structured')
    x, y = canvas.grid(32)
    for shape in ('_arrow', '_drop', '_key'):
        masks = [
            getattr(structured, shape)(*canvas.rotate(x * 2, y * 2, np.float64(k / 16)))[0] < 0
            for k in range(16)
        ]
        quarter = np.rot90(masks[0], -1)  # clockwise, as seen
        overlap = [(mask & quarter).sum() / (mask | quarter).sum() for mask in masks]
        assert np.argmax(overlap) == 4


def test_letters_lie_in_their_cells():
    sheet = glyphs()
    assert sheet.shape == (len(FONTS), len(LETTERS), CELL, CELL)
    assert sheet[:, :, [0, -1]].max() == sheet[:, :, :, [0, -1]].max() == 0
    assert (sheet.max(axis=(2, 3)) > 150).all()


def test_the_sheet_can_be_made_again():
    """Not to the bit: the rasteriser's versions differ."""
    pytest.importorskip('matplotlib')
    again = np.asarray(draw_sheet(), float).reshape(len(FONTS), CELL, len(LETTERS), CELL)
    assert np.abs(again.transpose(0, 2, 1, 3) - glyphs()).mean() < 8


@pytest.mark.parametrize('backbone', ['vit-mini', 'swin-mini'])
def test_recipes_train(backbone, quick):
    """A step of GLEAM-L moves its parameters, on every task's number of classes."""
    cfg = recipes.load(f'{backbone}_gleam-l_mini-textures')
    assert (
        cfg.train_cfg.max_epochs
        == recipes.load(f'{backbone}_lora_mini-digits').train_cfg.max_epochs
    )
    fill_num_classes(cfg)
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor, _scope_='gleam_mm')
    )
    model.init_weights()
    dataset = MiniVTAB('textures', 'val200', pipeline=[dict(type='PackInputs')])
    items = [dataset[i] for i in range(4)]
    batch = dict(
        inputs=[item['inputs'] for item in items],
        data_samples=[item['data_samples'] for item in items],
    )
    data = model.data_preprocessor(batch, training=True)
    loss = model(**data, mode='loss')['loss']
    loss.backward()
    trained = [p for p in model.petl.parameters() if p.requires_grad]
    assert torch.isfinite(loss) and any(p.grad.abs().sum() > 0 for p in trained)


def test_every_task_has_a_dataset_file():
    for name, task in MINI_TASKS.items():
        cfg = Config.fromfile(recipes.config_root() / f'_base_/datasets/mini-{name}.py')
        assert cfg.data_preprocessor.num_classes == task.num_classes
        for loader in ('train', 'val', 'test'):
            assert cfg[f'{loader}_dataloader'].dataset.task == name
    names = {n for n in recipes.families()['datasets'] if n.startswith('mini-')}
    assert names == {f'mini-{name}' for name in MINI_TASKS}
