"""Which splits a phase may see."""

import copy

import pytest
from sweep_place import OPTIONS

from gleam_mm.config import recipes
from gleam_mm.datasets import VTAB1K, CustomDataset
from gleam_mm.registry import DATASETS
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


def test_splits_are_found_behind_wrappers():
    cfg = recipes.load('vit-mini_linear_mini-digits')
    plain = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=plain)
    assert protocol.named_splits(cfg) == {'train800'}
    cfg.train_dataloader = None
    assert protocol.named_splits(cfg) == set()


def test_a_dataset_without_splits_is_refused():
    with pytest.raises(ValueError, match='a sweep needs datasets with a `split`'):
        prepared('vit-b_linear_folder', SELECT, **{'train_dataloader.dataset.type': 'CIFAR10'})


def test_a_folder_beside_a_dataset_without_splits_is_refused():
    cfg = recipes.load('vit-b_linear_folder')
    listed = dict(type='CSVDataset', ann_file='more.csv')
    folder = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[folder, listed])
    with pytest.raises(ValueError, match='a sweep needs datasets with a `split`'):
        protocol.prepare(cfg, SELECT, 0)  # the list would be trained on and judged on
    cfg = recipes.load('vit-b_linear_folder')
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[folder, folder])
    assert protocol.prepare(cfg, SELECT, 0) is protocol.FOLDERS


def test_options_are_not_judged_on_a_list_that_is_tested():
    def lists(judged, tested, phase):
        cfg = recipes.load('vit-b_linear_folder')
        cfg.train_dataloader.dataset = dict(type='CSVDataset', ann_file='a.csv', split='train')
        cfg.val_dataloader = judged and dict(dataset=dict(type='CSVDataset', **judged))
        cfg.test_dataloader.dataset = dict(type='CSVDataset', pipeline=[], **tested)
        protocol.prepare(cfg, phase, 0)
        return (cfg.val_dataloader or cfg.test_dataloader).dataset

    b, c = dict(ann_file='b.csv'), dict(ann_file='c.csv')
    told = "CSVDataset of test_dataloader has no `split`, .* give it split='test'"
    for judged in (None, c):
        with pytest.raises(ValueError, match=told):
            lists(judged, c, SELECT)
    assert lists(b, c, SELECT).ann_file == 'b.csv'
    assert lists(b, c, FINAL).ann_file == 'c.csv'
    split = lists(None, dict(ann_file='a.csv', split='test'), SELECT)
    assert (split.ann_file, split.split) == ('a.csv', 'val')


def test_folders_are_judged_on_a_share_of_the_training():
    select, final = (prepared('vit-b_linear_folder', phase) for phase in (SELECT, FINAL))
    data = select.train_dataloader.dataset, select.val_dataloader.dataset
    assert [part.part for part in data] == ['select', 'validate']
    assert [part.hold_out for part in data] == [[0.2], [0.2]]
    assert [part.get('take_held_out', False) for part in data] == [False, True]
    assert [part.data_prefix for part in data] == ['train', 'train']
    assert [part.pipeline[1].type for part in data] == ['RandomResizedCrop', 'ResizeEdge']
    assert select.test_dataloader is None
    assert final.train_dataloader.dataset.part == 'all'
    assert 'hold_out' not in final.train_dataloader.dataset
    assert (final.test_dataloader.dataset.part, final.val_dataloader) == ('test', None)
    assert final.test_dataloader.dataset.data_prefix == 'val'
    hook = dict(type='Anything', dataset=dict(type='CustomDataset', part='test'))
    with pytest.raises(ProtocolError, match=r"custom_hooks\.0\.dataset\.part is 'test'"):
        prepared('vit-b_linear_folder', SELECT, custom_hooks=[hook])


def test_each_picture_is_judged_on_once(tmp_path):
    for name, number in (('cat', 60), ('dog', 10)):
        (tmp_path / name).mkdir()
        for index in range(number):
            (tmp_path / name / f'{index}.png').write_bytes(b'')
    cfg = recipes.load('vit-b_linear_folder', {'train_dataloader.dataset.data_root': str(tmp_path)})
    plain = dict(cfg.train_dataloader.dataset, data_prefix='')
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=plain)
    for train, expected in (
        (balanced, [12, 2]),
        (dict(type='RepeatDataset', times=3, dataset=balanced), [12, 2]),
        (dict(type='ConcatDataset', datasets=[balanced, plain]), [24, 4]),
    ):
        cfg.train_dataloader.dataset = train
        select = copy.deepcopy(cfg)
        with protocol.only(*protocol.prepare(select, SELECT, 0).training(SELECT)):
            data = (DATASETS.build(select[key].dataset) for key in protocol.DATALOADERS[:2])
            trained, judged = (
                [part.get_data_info(index) for index in range(len(part))] for part in data
            )
        labels = [picture['gt_label'] for picture in judged]
        assert [labels.count(label) for label in (0, 1)] == expected
        assert [p['gt_label'] for p in trained].count(1) > 8  # which are trained on as told
        paths = [{picture['img_path'] for picture in part} for part in (trained, judged)]
        assert (len(paths[1]), paths[0] & paths[1]) == (14, set())


def test_the_parts_of_a_folder(tmp_path):
    for name, number in (('cat', 20), ('dog', 10)):
        (tmp_path / name).mkdir()
        for index in range(number):
            (tmp_path / name / f'{index}.png').write_bytes(b'')

    def pictures(part, **options):
        dataset = CustomDataset(data_root=str(tmp_path), part=part, **options)
        assert dataset.metainfo['classes'] == ('cat', 'dog')
        return [(data['img_path'], data['gt_label']) for data in dataset]

    with protocol.only('select', 'validate', 'all'):
        select = pictures('select', hold_out=0.2)
        validate = pictures('validate', hold_out=0.2, take_held_out=True)
        whole = pictures('all')
        with pytest.raises(ProtocolError, match="the split 'test' is closed now"):
            pictures('test')
    assert sorted(select + validate) == sorted(whole) and not {*select} & {*validate}
    assert [sum(label == wanted for _, label in validate) for wanted in (0, 1)] == [4, 2]
    assert validate == pictures('validate', hold_out=0.2, take_held_out=True)  # every time
    assert pictures('test') == whole
    with pytest.raises(ValueError, match=r'hold_out=0\.99 of 30 images leaves none'):
        pictures('select', hold_out=0.99)


def test_options_are_not_judged_on_pictures_that_the_data_hold_out_for_the_test(tmp_path):
    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        for index in range(25):
            (tmp_path / name / f'{index}.png').write_bytes(b'')
    held = {'data_root': str(tmp_path), 'data_prefix': '', 'hold_out': 0.2}
    options = {
        **{f'train_dataloader.dataset.{key}': value for key, value in held.items()},
        **{f'test_dataloader.dataset.{key}': value for key, value in held.items()},
        'test_dataloader.dataset.take_held_out': True,
    }
    select, final = (prepared('vit-b_linear_folder', phase, **options) for phase in (SELECT, FINAL))

    def pictures(loader):
        dataset = DATASETS.build({**loader.dataset, 'pipeline': []})
        return {data['img_path'] for data in dataset}

    train, judged = pictures(select.train_dataloader), pictures(select.val_dataloader)
    whole, test = pictures(final.train_dataloader), pictures(final.test_dataloader)
    assert [len(part) for part in (train, judged, whole, test)] == [32, 8, 40, 10]
    assert train | judged == whole and not whole & test


@pytest.mark.parametrize('phase', [SELECT, FINAL])
def test_splits_are_taken_whole(phase):
    told = r'train_dataloader\.dataset\.hold_out holds a part of a split out'
    with pytest.raises(ValueError, match=told):  # as the recipe of Hugging Face's datasets has it
        prepared('vit-mini_linear_huggingface', phase)
    whole = {
        f'{loader}_dataloader.dataset.{key}': value
        for loader in ('train', 'val', 'test')
        for key, value in (('hold_out', 0), ('take_held_out', False))
    }
    cfg = prepared('vit-mini_linear_huggingface', phase, **whole)
    judged = cfg.val_dataloader if phase == SELECT else cfg.test_dataloader
    assert cfg.train_dataloader.dataset.split == 'train'
    assert judged.dataset.split == ('val' if phase == SELECT else 'test')
    cfg = recipes.load('vit-mini_linear_mini-digits', {'train_dataloader.dataset.hold_out': 0.1})
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', dataset=cfg.train_dataloader.dataset)
    with pytest.raises(ValueError, match=r'train_dataloader\.dataset\.dataset\.hold_out'):
        protocol.prepare(cfg, phase, 0)


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
