"""Sessions of classes, prototypes that drift, and a run from beginning to end."""

import copy

import numpy as np
import pytest
import torch
from backbones import CONFIGS, WIDTH
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from PIL import Image
from torch.nn import functional as F

from gleam_mm.engine.classes import fill_classes
from gleam_mm.incremental import SSIAT, Sessions
from gleam_mm.incremental.ssiat import Prototype, drift
from gleam_mm.models import CosineClsHead
from gleam_mm.registry import MODELS, scope_of


def loader(split, images):
    dataset = dict(type='MiniVTAB', split=split, indices=images, pipeline=[dict(type='PackInputs')])
    return dict(
        batch_size=16,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )


@pytest.fixture
def cfg(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / 'weights.pth'
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), weights)
    named = dict(type='Pretrained', checkpoint=str(weights))
    return Config(
        dict(
            default_scope='gleam_mm',
            model=dict(
                type='PETLClassifier',
                backbone={**copy.deepcopy(CONFIGS['vit']), 'init_cfg': named},
                head=dict(type='CosineClsHead', in_channels=WIDTH, num_classes=10),
                petl=dict(type='AdaptFormer', bottleneck=8),
            ),
            data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=10),
            train_dataloader=loader('train800', 120),
            test_dataloader=loader('test', 100),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05)),
            randomness=dict(seed=0),
        )
    )


def test_the_head_is_a_cosine_among_active_classes():
    head = CosineClsHead(num_classes=4, in_channels=6, scale=5.0)
    x, w = torch.randn(3, 6), head.fc.weight
    cosines = torch.stack([F.cosine_similarity(x, row[None]) for row in w], dim=1)
    torch.testing.assert_close(head((x,)), 5 * cosines)
    head.active = [1, 3]
    assert head((x,))[:, [0, 2]].isneginf().all()
    loss = F.cross_entropy(head((x,)), torch.tensor([1, 3, 1]))
    torch.testing.assert_close(
        loss, F.cross_entropy(5 * cosines[:, [1, 3]], torch.tensor([0, 1, 0]))
    )
    loss.backward()
    assert not w.grad[[0, 2]].any() and w.grad[[1, 3]].any(1).all() and w.grad.isfinite().all()


def test_prototypes_drift_with_their_neighbours():
    mean, before = torch.zeros(3), torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [9.0, 9, 9]])
    after = before + torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [5.0, 5, 5]])
    w = np.exp([-1 / 18, -4 / 18, -243 / 18])
    expected = (w[:, None] * (after - before).numpy()).sum(0) / w.sum()
    torch.testing.assert_close(drift(mean, before, after, 3.0), torch.tensor(expected).float())
    assert drift(mean, 1e4 * before, 1e4 * before + 1, 0.1).isfinite().all()


def test_prototypes_draw_the_distribution_of_their_class():
    features = torch.randn(40, 3) @ torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, 0.0]]) + 3
    drawn = Prototype.of(features).sample(200_000)
    torch.testing.assert_close(drawn.mean(0), features.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), features.T.cov(), atol=0.1, rtol=0)


def test_sessions_have_classes_of_their_own(cfg):
    sessions = list(Sessions(cfg, 3, seed=1))
    assert [len(s.classes) for s in sessions] == [4, 3, 3]
    assert sorted(sessions[-1].seen) == list(range(10))
    for session in sessions:
        for data, classes in ((session.train, session.classes), (session.test, session.seen)):
            labels = {s.gt_label.item() for batch in data for s in batch['data_samples']}
            assert labels == set(classes)
    with pytest.raises(ValueError, match='choose 5 at most'):
        Sessions(cfg, 6)


@pytest.fixture
def folders(tmp_path, cfg):
    """A config of folders of classes, with pictures that are half black and half white."""

    def make(train, test):
        for split, counts in (('train', train), ('test', test)):
            transforms = [
                dict(type='LoadImageFromFile'),
                dict(type='RandomFlip', prob=float(split == 'train')),
                dict(type='PackInputs'),
            ]
            for name, number in counts.items():
                (tmp_path / split / name).mkdir(parents=True)
                for index in range(number):
                    picture = Image.new('RGB', (8, 8))
                    picture.paste('white', (0, 0, 4, 8))
                    picture.save(tmp_path / split / name / f'{index}.png')
            dataset = dict(type='CustomDataset', data_prefix=str(tmp_path / split))
            cfg[f'{split}_dataloader'].dataset = {**dataset, 'pipeline': transforms}
        cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = None
        return cfg

    return make


def test_test_folders_that_lack_a_class_have_the_labels_of_the_training(folders):
    cfg = folders(dict.fromkeys('abcd', 1), dict.fromkeys('bcd', 1))
    with (
        scope_of(cfg),
        pytest.raises(ValueError, match=r"test_dataloader has other classes .* class 0 is 'b'"),
    ):
        Sessions(cfg, 2)
    fill_classes(cfg)
    with scope_of(cfg):
        *_, last = Sessions(cfg, 2)
    told = [s for batch in last.test for s in batch['data_samples']]
    assert [(s.img_path[-7], s.gt_label.item()) for s in told] == [('b', 1), ('c', 2), ('d', 3)]


def test_features_are_of_all_pictures_as_they_are(folders):
    cfg = folders(dict.fromkeys('abcd', 3), dict.fromkeys('abcd', 1))
    for key in ('train_dataloader', 'test_dataloader'):
        cfg[key].update(batch_size=4, drop_last=True, num_batch_per_epoch=1)
    with scope_of(cfg):
        session = next(iter(Sessions(cfg, 2)))
    still = [picture for batch in session.still for picture in batch['inputs']]
    assert len(still) == 6 and sum(len(batch['inputs']) for batch in session.train) == 4
    assert all(picture[..., :4].all() and not picture[..., 4:].any() for picture in still)
    assert all(not p[..., :4].any() for batch in session.train for p in batch['inputs'])


@pytest.mark.parametrize(
    'wrap',
    [
        lambda part: dict(type='RepeatDataset', times=2, dataset=part),
        lambda part: dict(type='ConcatDataset', datasets=[part, part]),
        lambda part: dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=part),
        lambda part: dict(type='KFoldDataset', fold=1, num_splits=3, seed=0, dataset=part),
    ],
    ids=['repeated', 'concatenated', 'balanced', 'fold'],
)
def test_features_are_of_the_pictures_of_a_wrapped_training(wrap, folders):
    cfg = folders(dict.fromkeys('abcd', 6), dict.fromkeys('abcd', 1))
    cfg.train_dataloader.dataset = wrap(cfg.train_dataloader.dataset)
    cfg.train_dataloader.drop_last = False
    with scope_of(cfg):
        session, *_ = Sessions(cfg, 2)

    def paths(loader):
        return sorted(s.img_path for batch in loader for s in batch['data_samples'])

    assert paths(session.train) == paths(session.still)
    still = [picture for batch in session.still for picture in batch['inputs']]
    assert all(picture[..., :4].all() and not picture[..., 4:].any() for picture in still)


def test_sessions_share_nothing_with_datasets_that_are_gone(folders, monkeypatch):
    cfg = folders(dict.fromkeys('abcd', 1), dict.fromkeys('abcd', 1))
    with scope_of(cfg):
        sessions = Sessions(cfg, 2)
    memo = BaseDataset._copy_without_annotation.__defaults__[0]  # MMEngine's, of all subsets
    monkeypatch.setitem(memo, id(sessions._train.pipeline), 'of another dataset, at its address')
    with scope_of(cfg):
        assert [len(batch['inputs']) for batch in next(iter(sessions)).train] == [2]


def test_classes_without_pictures_are_refused(folders):
    cfg = folders({'a': 0, 'b': 1, 'c': 1, 'd': 1}, dict.fromkeys('abcd', 1))
    with scope_of(cfg), pytest.raises(ValueError, match=r'train_dataloader: 1 of 4 .* no image: a'):
        Sessions(cfg, 2)


def test_a_first_session_without_test_pictures_is_refused(folders):
    train = dict.fromkeys('abcd', 1)
    names = [list(train)[label] for label in np.random.default_rng(1993).permutation(4)]
    cfg = folders(train, {name: names.index(name) // 2 for name in train})
    with scope_of(cfg), pytest.raises(ValueError, match=rf'has no image of {", ".join(names[:2])}'):
        Sessions(cfg, 2)


@pytest.mark.slow
def test_all_classes_are_told_in_the_end(cfg):
    torch.manual_seed(0)
    learner = SSIAT(cfg, sessions=2, first_epochs=4, epochs=4, align_epochs=4, align_rate=0.1)
    weights = {k: v.clone() for k, v in learner.model.state_dict().items() if k != '_extra_state'}
    seen = []
    found = learner.run(lambda session, accuracy: seen.append((len(session.seen), accuracy)))
    assert seen == [(5, found[0]), (10, found[1])]
    assert found[0] > 35 and found[1] > 20  # of 20 and 10 by chance
    state = learner.model.state_dict()
    assert all(not torch.equal(state[k], w) for k, w in weights.items() if 'up.weight' in k)
    assert sorted(learner.prototypes) == list(range(10))
    with pytest.raises(ValueError, match='SSIAT takes a CosineClsHead'):
        cfg.model.head.type = 'LinearClsHead'
        SSIAT(cfg, sessions=2)
