"""The pre-training corpus: determinism, ranges, classes, and indices that never repeat."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from gleam_mm.minivtab import FreshSampler, ProceduralImages

CONFIG = Path(__file__).parents[2] / 'configs/pretrain/vit-mini_procedural.py'


@pytest.fixture(scope='module')
def corpus():
    return ProceduralImages(size=64)


def test_an_image_depends_on_seed_and_index_alone(corpus):
    indices = [5, 400, 77, 10**9, 5]
    batch = corpus.render(indices)
    assert (batch[0] == batch[4]).all()
    again = ProceduralImages(size=7)
    for image, index in zip(batch, indices, strict=True):
        assert (again.render([index])[0] == image).all()
    other = ProceduralImages(size=64, seed=1)
    assert (other.labels(indices) == corpus.labels(indices)).all()
    assert all((a != b).mean() > 0.2 for a, b in zip(other.render(indices), batch, strict=True))


def test_images_are_varied_rgb(corpus):
    images = corpus.render(range(corpus.num_classes))
    assert images.shape == (corpus.num_classes, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == len(images)
    # No image is blank, and brightness and colour vary.
    contrast = images.std(axis=(1, 2)).max(axis=1)
    assert contrast.min() > 3
    brightness = images.mean(axis=(1, 2, 3))
    assert brightness.min() < 60
    assert brightness.max() > 195
    colourful = np.ptp(images.mean(axis=(1, 2)), axis=1) > 10
    assert 0.3 < colourful.mean() < 0.95


def test_every_class_comes_equally_often(corpus):
    count = corpus.num_classes
    assert len(corpus.metainfo['classes']) == count == len(set(corpus.metainfo['classes']))
    assert (np.bincount(corpus.labels(range(3 * count))) == 3).all()


def test_the_config_knows_the_number_of_classes(corpus):
    cfg = Config.fromfile(CONFIG)
    assert cfg.model.head.num_classes == corpus.num_classes


def test_places_are_where_their_names_say(corpus):
    """The centre of mass of what differs from the border follows the cell in the class name."""
    names = corpus.metainfo['classes']
    for row in (0, 3):
        label = names.index(f'large-at-{row}1')
        indices = [label + k * corpus.num_classes for k in range(20)]
        images = corpus.render(indices).astype(float).mean(axis=-1)
        heights = []
        for image in images:
            difference = np.abs(image - np.median(image[:, 24:])) ** 2
            heights.append((difference.sum(axis=1) * np.arange(32)).sum() / difference.sum())
        assert (np.median(heights) < 14) if row == 0 else (np.median(heights) > 18)


def test_items_come_in_batches_and_one_by_one():
    corpus = ProceduralImages(size=8, pipeline=[dict(type='PackInputs')])
    loader = DataLoader(corpus, batch_size=4, collate_fn=pseudo_collate)
    batch = next(iter(loader))
    assert len(batch['inputs']) == 4
    single = corpus[2]
    assert (batch['inputs'][2] == single['inputs']).all()
    assert batch['data_samples'][2].gt_label == single['data_samples'].gt_label


def test_epochs_are_shuffled_and_never_repeat(corpus):
    sampler = FreshSampler(corpus, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == list(range(64)) != first
    assert sorted(second) == list(range(64, 128))
    assert [i - 64 for i in second] != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_processes_share_an_epoch(corpus, monkeypatch):
    seen = []
    for rank in range(3):
        monkeypatch.setattr('gleam_mm.minivtab.procedural.get_dist_info', lambda r=rank: (r, 3))
        sampler = FreshSampler(corpus, seed=0)
        assert len(list(sampler)) == len(sampler)
        seen += list(sampler)
    assert sorted(seen) == list(range(64))


@pytest.mark.parametrize('kwargs', [dict(size=0), dict(size=4, glyphs=0)])
def test_sizes_below_one_are_refused(kwargs):
    with pytest.raises(ValueError, match='must be at least 1, got 0'):
        ProceduralImages(**kwargs)


def test_the_corpus_is_the_one_that_the_backbones_learnt_from(corpus):
    """In the mean brightness of one image a family: the last bits of sines differ by machine."""
    images = corpus.render([3, 260, 345, 380, 409 * 20 + 300])
    expected = [169.31, 136.40, 228.22, 216.12, 87.51]
    assert images.mean(axis=(1, 2, 3)) == pytest.approx(expected, abs=0.02)
