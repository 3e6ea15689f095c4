"""Heads for other targets than one class: a training, its adapter, and a prediction from that."""

import copy

import numpy as np
import pytest
import torch
from backbones import CONFIGS, WIDTH
from mmengine.config import Config
from mmpretrain.structures import DataSample, MultiTaskDataSample
from PIL import Image
from torch.nn import functional

from gleam_mm import Predictor
from gleam_mm.checkpoint import save_adapter
from gleam_mm.inference import preprocessing
from gleam_mm.models import RegressionHead, build_model

IMAGES = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def of_label(label):
    return DataSample().set_gt_label(label)


def of_numbers(*numbers):
    return DataSample().set_gt_score(torch.tensor(numbers))


def of_tasks(**tasks):
    sample = MultiTaskDataSample()
    for task, own in tasks.items():
        sample.set_field(own, task)
    return sample


LINEAR = dict(type='LinearClsHead', in_channels=WIDTH)
HEADS = {
    'several classes': (
        dict(type='MultiLabelLinearClsHead', in_channels=WIDTH, num_classes=3),
        [of_label(one) for one in ([0], [1, 2], [], [2])],
    ),
    'several tasks': (
        dict(
            type='MultiTaskHead',
            task_heads=dict(
                kind=dict(LINEAR, num_classes=2),
                colour=dict(LINEAR, num_classes=3),
                size=dict(type='RegressionHead', num_classes=2, mean=[-9.0, 0.0]),
            ),
            in_channels=WIDTH,
        ),
        [
            of_tasks(
                kind=of_label(i % 2), colour=of_label(i % 3), size=of_numbers(i - 9.0, float(i))
            )
            for i in range(4)
        ],
    ),
    'ArcFace': (
        dict(type='ArcFaceClsHead', in_channels=WIDTH, num_classes=3),
        [of_label(i % 3) for i in range(4)],
    ),
    'numbers': (
        dict(type='RegressionHead', in_channels=WIDTH, num_classes=2, mean=[5.0, 0.0], std=2.0),
        [of_numbers(5.0 + i, -float(i)) for i in range(4)],
    ),
}


@pytest.mark.parametrize('name', HEADS)
def test_training_and_predicting(name, tmp_path):
    head, samples = HEADS[name]
    preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=3)
    if name in ('several tasks', 'numbers'):
        preprocessor.pop('num_classes')
    cfg = Config(
        dict(
            default_scope='gleam_mm',
            model=dict(
                type='PETLClassifier',
                backbone=copy.deepcopy(CONFIGS['vit']),
                head=head,
                petl=dict(type='LoRA', rank=2),
                allow_random_backbone=True,
            ),
            data_preprocessor=dict(preprocessor, to_onehot=name == 'several classes'),
        )
    )
    model = build_model(cfg)
    model.init_weights()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    batch = model.data_preprocessor(dict(inputs=list(IMAGES), data_samples=samples), training=True)
    losses = []
    for _ in range(15):
        loss = model.parse_losses(model.loss(batch['inputs'], batch['data_samples']))[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

    metadata = {
        **model.description,
        'classes': {'numbers': ['x', 'y'], 'several tasks': None}.get(name, ['a', 'b', 'c']),
        'backbone_fingerprint': model.backbone_fingerprint(),
        'pipeline': PIPELINE,
    }
    save_adapter(tmp_path / 'a.safetensors', model.state_dict(), metadata)
    array = IMAGES[0].permute(1, 2, 0).numpy().astype(np.uint8)
    Image.fromarray(array[..., ::-1]).save(tmp_path / 'x.png')
    told = Predictor(tmp_path / 'a.safetensors')(str(tmp_path / 'x.png'), top_k=2)
    model.eval()
    with torch.no_grad():
        (expected,) = model.predict(batch['inputs'][:1])
    if name == 'several tasks':
        assert told.keys() == {'kind', 'colour', 'size'}
        sizes = expected.size.pred_score.tolist()
        assert [label for label, _ in told['size']] == [0, 1]
        assert [number for _, number in told.pop('size')] == pytest.approx(sizes, abs=1e-5)
        for task, best in told.items():
            scores = expected.get(task).pred_score
            assert [s for _, s in best] == pytest.approx(scores.topk(2).values.tolist())
            assert best[0].label == scores.argmax().item()
        return
    scores = expected.pred_score
    if name == 'numbers':
        assert [label for label, _ in told] == ['x', 'y']
        assert [number for _, number in told] == pytest.approx(scores.tolist(), abs=1e-5)
    else:
        assert [score for _, score in told] == pytest.approx(scores.topk(2).values.tolist())
        assert told[0].label == 'abc'[scores.argmax()]


@pytest.mark.parametrize('loss', ['l1', 'l2', 'smooth_l1'])
def test_the_loss_is_that_of_normalised_targets(loss):
    head = RegressionHead(2, 4, loss=loss, mean=[1.0, 2.0], std=[3.0, 0.5])
    features, target = torch.randn(5, 4), torch.randn(5, 2)
    samples = [DataSample().set_gt_score(one) for one in target]
    predicted = head((features,))
    normal = [
        (values - torch.tensor([1.0, 2.0])) / torch.tensor([3.0, 0.5])
        for values in (predicted, target)
    ]
    reference = {
        'l1': lambda a, b: (a - b).abs().mean(),
        'l2': lambda a, b: ((a - b) ** 2).mean(),
        'smooth_l1': functional.smooth_l1_loss,
    }[loss]
    torch.testing.assert_close(head.loss((features,), samples)['loss'], reference(*normal))
    assert torch.equal(head.predict((features,))[0].pred_score, predicted[0])


def test_mistakes():
    with pytest.raises(ValueError, match=r'std=0'):
        RegressionHead(1, 4, std=0.0)
    with pytest.raises(ValueError, match=r'mean=\[1.0, 2.0\]'):
        RegressionHead(1, 4, mean=[1.0, 2.0])
    with pytest.raises(ValueError, match="loss='huber'"):
        RegressionHead(1, 4, loss='huber')
    head = RegressionHead(1, 4)
    with pytest.raises(ValueError, match='no gt_score'):
        head.loss((torch.randn(1, 4),), [DataSample()])
    with pytest.raises(ValueError, match='num_classes=1'):
        head.loss((torch.randn(1, 4),), [DataSample().set_gt_score([1.0, 2.0])])


def test_the_pipeline_of_several_tasks_is_one_for_a_picture():
    several = dict(type='PackMultiTaskInputs', multi_task_fields=('gt_label',))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=32), several]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    steps = preprocessing.of_config(cfg)
    assert steps == [*pipeline[:2], dict(type='PackInputs')]
