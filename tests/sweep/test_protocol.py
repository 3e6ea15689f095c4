"""Which splits a phase may see."""

import pytest
from sweep_place import OPTIONS

from gleam_mm.config import recipes
from gleam_mm.datasets import VTAB1K
from gleam_mm.sweep import protocol
from gleam_mm.sweep.plan import FINAL, SELECT
from gleam_mm.sweep.protocol import ProtocolError


def prepared(name, phase, seed=5, **options):
    cfg = recipes.load(name, options)
    protocol.prepare(cfg, phase, seed)
    return cfg


@pytest.mark.parametrize('dataset', ['vtab-cifar', 'mini-digits'])
def test_vtab(dataset):
    select = prepared(f'vit-mini_linear_{dataset}', SELECT)
    assert select.train_dataloader.dataset.split == 'train800'
    assert select.val_dataloader.dataset.split == 'val200'
    assert select.val_cfg is not None
    assert select.val_evaluator.type == 'Accuracy'
    assert (select.test_dataloader, select.test_cfg, select.test_evaluator) == (None, None, None)
    assert select.randomness.seed == 5
    final = prepared(f'vit-mini_linear_{dataset}', FINAL)
    assert final.train_dataloader.dataset.split == 'train800val200'
    assert (final.val_dataloader, final.val_cfg, final.val_evaluator) == (None, None, None)
    assert final.test_dataloader.dataset.split == 'test'
    assert final.test_evaluator.type == 'Accuracy'


def test_few_shots_are_drawn_by_the_seed():
    select = prepared('vit-b_linear_fgvc-pets', SELECT, seed=2)
    assert select.train_dataloader.dataset.split == 'train'
    assert select.train_dataloader.dataset.seed == 2
    assert select.val_dataloader.dataset.split == 'val'
    assert select.test_dataloader is None
    final = prepared('vit-b_linear_fgvc-pets', FINAL, seed=1)
    assert (final.train_dataloader.dataset.split, final.train_dataloader.dataset.seed) == (
        'train',
        1,
    )
    assert final.val_dataloader is None
    assert final.test_dataloader.dataset.split == 'test'


def test_a_dataset_without_splits_is_refused():
    with pytest.raises(ValueError, match='a sweep needs datasets with a `split`'):
        prepared('vit-b_linear_folder', SELECT)


def test_a_config_that_names_the_test_split_is_refused_in_selection():
    hook = dict(type='Anything', dataset=dict(type='VTAB1K', split='test', task='kitti'))
    with pytest.raises(ProtocolError, match=r"custom_hooks\.0\.dataset\.split is 'test'"):
        prepared('vit-mini_linear_vtab-kitti', SELECT, custom_hooks=[hook])
    prepared('vit-mini_linear_vtab-kitti', FINAL, custom_hooks=[hook])


@pytest.mark.parametrize('lazy', [False, True])
def test_a_closed_split_cannot_be_loaded(place, lazy):
    def load(split):
        return len(VTAB1K('kitti', split, data_root='data/vtab-1k', lazy_init=lazy))

    with protocol.only('train800', 'val200'):
        assert load('train800') == 8
        assert load('val200') == 4
        with pytest.raises(ProtocolError, match="the split 'test' is closed now"):
            load('test')
        with pytest.raises(ProtocolError, match="'train800val200' is closed now"):
            load('train800val200')
    assert load('test') == 6


def test_options_of_the_tests_apply():
    cfg = recipes.load('vit-mini_linear_vtab-kitti', OPTIONS)
    assert cfg.train_dataloader.dataset.pipeline[1].scale == [32, 32]
