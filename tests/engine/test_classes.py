"""The head gets as many outputs as the dataset has classes."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmengine import Config
from mmengine.dataset import BaseDataset

from gleam_mm.engine import CheckClassesHook, fill_num_classes
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


def test_validation_classes_are_compared_before_training(make_classifier):
    def loader(*classes):
        return SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=classes)))

    runner = SimpleNamespace(
        model=make_classifier(num_classes=2),
        val_loop=object(),
        train_dataloader=loader('cat', 'dog'),
        val_dataloader=loader('cat', 'hen'),
    )
    with pytest.raises(ValueError, match="the first has 'dog', the second has 'hen'"):
        CheckClassesHook().before_train(runner)


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
