"""The head gets as many outputs as the dataset has classes."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine import Config
from mmengine.dataset import BaseDataset

from gleam_mm.engine import CheckClassesHook, fill_num_classes
from gleam_mm.engine import classes as classes_module
from gleam_mm.engine.classes import fill_classes
from gleam_mm.registry import DATASETS, scope_of


def config(head=None, preprocessor=None, dataset=None):
    return Config(
        dict(
            model=dict(head=dict(type='LinearClsHead', in_channels=8, num_classes=head)),
            data_preprocessor=dict(num_classes=preprocessor),
            train_dataloader=dict(dataset=dataset) if dataset else None,
        )
    )


def test_number_of_the_head_wins():
    cfg = config(head=7)
    fill_num_classes(cfg)
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 7


def test_number_of_the_preprocessor_is_next():
    cfg = config(preprocessor=12)
    fill_num_classes(cfg)
    assert cfg.model.head.num_classes == 12


def test_number_is_read_from_folders(tmp_path):
    for name in ('cat', 'dog', 'hen'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.png').write_bytes(b'')
    cfg = config(dataset=dict(type='CustomDataset', data_root=str(tmp_path)))
    fill_num_classes(cfg)
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3


def test_nothing_to_read_from_is_an_error():
    with pytest.raises(ValueError, match=r'neither a train_dataloader nor .* set model.head.num'):
        fill_num_classes(config())


@pytest.mark.parametrize('phase', ['train', 'val', 'test'])
def test_mismatch_stops_the_run(phase, make_classifier):
    dataset = SimpleNamespace(metainfo=dict(classes=('cat', 'dog', 'hen')))
    runner = SimpleNamespace(
        model=make_classifier(num_classes=5),
        val_loop=None,
        **{f'{phase}_dataloader': SimpleNamespace(dataset=dataset)},
    )
    with pytest.raises(ValueError, match=rf'is 5, but the dataset of {phase}_dataloader has 3 cl'):
        getattr(CheckClassesHook(), f'before_{phase}')(runner)
    runner.model = make_classifier(num_classes=3)
    getattr(CheckClassesHook(), f'before_{phase}')(runner)


@pytest.mark.parametrize(
    ('classes', 'labels', 'told'),
    [
        (['images'], [0, 0], 'all images are of one class, images, .*give that folder'),
        (['cat', 'dog'], [1], '1 of 2 classes have no image: cat; .*hold_out'),
        (['x'], [[0], []], ''),  # several classes an image
        (['cat', 'dog'], [0, 1], ''),
    ],
)
def test_a_training_to_no_purpose_is_told(classes, labels, told, monkeypatch):
    dataset = BaseDataset(metainfo=dict(classes=classes), lazy_init=True)
    dataset.data_list = [dict(img_path='x.png', gt_label=label) for label in labels]
    dataset.data_bytes, dataset._fully_initialized, dataset.serialize_data = [], True, False
    runner = SimpleNamespace(
        model=SimpleNamespace(head=SimpleNamespace(num_classes=len(classes))),
        val_loop=None,
        train_dataloader=SimpleNamespace(dataset=dataset),
    )
    lines = []
    monkeypatch.setattr(classes_module, 'print_log', lambda line, **_: lines.append(line))
    CheckClassesHook().before_train(runner)
    assert len(lines) == bool(told)
    assert re.search(told, ' '.join(lines))


def test_validation_classes_are_compared_before_training(make_classifier):
    def loader(*classes):
        return SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=classes)))

    runner = SimpleNamespace(
        model=make_classifier(num_classes=2),
        val_loop=object(),
        train_dataloader=loader('cat', 'dog'),
        val_dataloader=loader('cat', 'hen'),
    )
    with pytest.raises(ValueError, match="class 1 is 'hen', and 'dog' there"):
        CheckClassesHook().before_train(runner)


@pytest.fixture
def pets(tmp_path):
    """Folders of classes by split, one empty picture each, and what trains on them."""

    def make(**splits):
        for split, names in splits.items():
            for name in names:
                (tmp_path / split / name).mkdir(parents=True)
                (tmp_path / split / name / 'a.png').write_bytes(b'')
        loaders = {
            f'{split}_dataloader': dict(
                dataset=dict(type='CustomDataset', data_root=str(tmp_path), data_prefix=split)
            )
            for split in splits
        }
        head = dict(type='LinearClsHead', in_channels=8, num_classes=None)
        return Config(dict(model=dict(head=head), **loaders))

    return make


def labels(config):
    with scope_of({}):
        dataset = DATASETS.build(config)
    return {data['img_path'].split('/')[-2]: data['gt_label'] for data in dataset}


def test_folders_of_other_splits_have_the_classes_of_the_training(pets):
    cfg = pets(train=['cat', 'dog', 'hen'], val=['cat', 'hen'], test=['hen'])
    fill_classes(cfg)
    assert cfg.model.head.num_classes == 3
    assert labels(cfg.val_dataloader.dataset) == {'cat': 0, 'hen': 2}
    assert labels(cfg.test_dataloader.dataset) == {'hen': 2}


def test_folders_with_other_names_are_no_classes_of_the_training(pets):
    cfg = pets(train=['cat', 'dog'], test=['ant', 'bee'])
    fill_classes(cfg)
    with pytest.raises(ValueError, match=r'test: of its 2 .* none of the 2 `classes`: ant, bee'):
        labels(cfg.test_dataloader.dataset)


def test_names_that_are_given_stay(pets):
    cfg = pets(train=['n1', 'n2'], val=['n1', 'n2'])
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.classes = ['cat', 'dog']
    fill_classes(cfg)
    assert labels(cfg.val_dataloader.dataset) == {'n1': 0, 'n2': 1}


def test_the_classes_of_a_checkpoint_count_without_training_data(pets):
    cfg = pets(test=['dog', 'cat'])
    fill_classes(cfg, ('dog', 'cat', 'hen'))
    assert cfg.model.head.num_classes == 3
    assert labels(cfg.test_dataloader.dataset) == {'dog': 0, 'cat': 1}


def test_a_class_has_a_name_of_its_own(pets):
    cfg = pets(train=['cat', 'dog'])
    with pytest.raises(ValueError, match="'dog' is there twice"):
        labels({**cfg.train_dataloader.dataset, 'classes': ['cat', 'dog', 'dog']})


@pytest.mark.parametrize('trained, told', [(('dog', 'cat'), 'other classes'), (None, None)])
def test_a_checkpoint_of_other_classes_is_not_tested(trained, told, make_classifier):
    dataset = SimpleNamespace(metainfo=dict(classes=['cat', 'dog']))
    runner = SimpleNamespace(
        model=make_classifier(num_classes=2),
        trained_classes=trained,
        test_dataloader=SimpleNamespace(dataset=dataset),
    )
    if told is None:
        CheckClassesHook().before_test(runner)
        return
    with pytest.raises(ValueError, match="than the checkpoint: class 0 is 'cat', and 'dog' there"):
        CheckClassesHook().before_test(runner)


def test_a_dataset_without_images_is_told(make_classifier):
    message = r'_FourLabels: the dataset has no images \(indices=\[\]\)'
    with scope_of({}), pytest.raises(ValueError, match=message):
        DATASETS.build(dict(type='_FourLabels', indices=[]))
    empty = _FourLabels(labels=(), serialize_data=False)
    for phase in ('val', 'test'):
        runner = SimpleNamespace(
            model=make_classifier(num_classes=2),
            **{f'{phase}_dataloader': SimpleNamespace(dataset=empty)},
        )
        with pytest.raises(ValueError, match=f'{phase}_dataloader.dataset has no images'):
            getattr(CheckClassesHook(), f'before_{phase}')(runner)


@DATASETS.register_module()
class _FourLabels(BaseDataset):
    """A dataset of two classes, one of whose labels is beyond them."""

    METAINFO = dict(classes=('cat', 'dog'))

    def load_data_list(self):
        return [{'img_path': f'{np.max(label)}.jpg', 'gt_label': label} for label in self.labels]

    def __init__(self, labels=(0, 1, 0, 2), **kwargs):
        self.labels = labels
        super().__init__(**kwargs)

    def get_cat_ids(self, index):
        return np.ravel(self.get_data_info(index)['gt_label']).tolist()


WRONG = dict(type='_FourLabels')
WRAPPED = {
    'plain': WRONG,
    'repeated': dict(type='RepeatDataset', times=2, dataset=WRONG),
    'balanced': dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=WRONG),
    'fold': dict(type='KFoldDataset', fold=0, num_splits=2, dataset=WRONG),
    'second': dict(type='ConcatDataset', datasets=[dict(type='_FourLabels', labels=(0, 1)), WRONG]),
    'nested': dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='ConcatDataset',
            datasets=[dict(type='RepeatDataset', times=3, dataset=WRONG), WRONG],
        ),
    ),
    'several labels': dict(type='_FourLabels', labels=([0, 1], [2])),
    'numpy': dict(type='_FourLabels', labels=(0, np.int64(2))),
}


@pytest.mark.parametrize('wrapped', WRAPPED)
def test_labels_beyond_the_classes_stop_the_run(wrapped, make_classifier):
    with scope_of({}):
        dataset = DATASETS.build(WRAPPED[wrapped])
    runner = SimpleNamespace(
        model=make_classifier(num_classes=2),
        val_loop=None,
        train_dataloader=SimpleNamespace(dataset=dataset),
    )
    with pytest.raises(ValueError, match=r'label 2 of 2.jpg is out of range; there are 2 classes'):
        CheckClassesHook().before_train(runner)
