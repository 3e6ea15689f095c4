"""The head gets as many outputs as the dataset has classes."""

from types import SimpleNamespace

import pytest
from mmengine import Config

from gleam_mm.engine import CheckClassesHook, fill_num_classes
from gleam_mm.registry import DATASETS


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


def test_labels_beyond_the_classes_stop_the_run(make_classifier, tmp_path):
    (tmp_path / 'list.txt').write_text('a.jpg 0\nb.jpg 3\n')
    dataset = DATASETS.build(
        dict(type='CustomDataset', ann_file=str(tmp_path / 'list.txt'), classes=['cat', 'dog'])
    )
    runner = SimpleNamespace(
        model=make_classifier(num_classes=2),
        val_loop=None,
        train_dataloader=SimpleNamespace(dataset=dataset),
    )
    with pytest.raises(ValueError, match=r'label 3 of b.jpg is out of range; there are 2 classes'):
        CheckClassesHook().before_train(runner)
