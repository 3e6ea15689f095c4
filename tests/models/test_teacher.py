"""Distillation: the loss against its equation, and an adapter that moves to another backbone."""

import copy

import pytest
import torch
from backbones import CONFIGS, NECKS, WIDTH
from mmengine.config import Config
from mmpretrain.structures import DataSample
from torch.nn import functional as F

from gleam_mm.checkpoint import FINGERPRINT, CheckpointError, save_adapter
from gleam_mm.models import build_model, load_model
from gleam_mm.registry import MODELS

PIXELS = dict(mean=[127.5] * 3, std=[127.5] * 3)


def config_of(kind, weights, petl, preprocessor=None, **options):
    named = dict(type='Pretrained', checkpoint=str(weights))
    model = dict(
        type='PETLClassifier',
        backbone={**copy.deepcopy(CONFIGS[kind]), 'init_cfg': named},
        neck=NECKS[kind],
        head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=3),
        petl=petl,
        **options,
    )
    return Config(dict(default_scope='gleam_mm', model=model, data_preprocessor=preprocessor))


@pytest.fixture
def teacher_file(tmp_path):
    """An adapter on a ViT whose head is no stranger to any class."""
    torch.manual_seed(0)
    weights = tmp_path / 'vit.pth'
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), weights)
    model = build_model(config_of('vit', weights, dict(type='LoRA', rank=2), PIXELS))
    with torch.no_grad():
        for parameter in (*model.petl.parameters(), *model.head.parameters()):
            parameter.copy_(0.3 * torch.randn_like(parameter))
    tensors = {name: t for name, t in model.state_dict().items() if name != FINGERPRINT}
    metadata = dict(
        model.description,
        backbone_fingerprint=model.backbone_fingerprint(),
        classes=['a', 'b', 'c'],
    )
    save_adapter(tmp_path / 'teacher.safetensors', tensors, metadata)
    return tmp_path / 'teacher.safetensors'


@pytest.fixture
def student(tmp_path, teacher_file):
    """A Swin with an adapter of another kind, whose images are prepared in another way."""
    torch.manual_seed(1)
    weights = tmp_path / 'swin.pth'
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['swin'])).state_dict(), weights)

    def make(**options):
        cfg = config_of(
            'swin',
            weights,
            dict(type='Adapter', bottleneck=4),
            teacher=dict(checkpoint=str(teacher_file), **options),
        )
        described = cfg.model.to_dict()
        described['data_preprocessor'] = dict(mean=[100.0] * 3, std=[50.0] * 3)
        return MODELS.build(described)

    return make


def samples(*labels):
    return [DataSample() if n is None else DataSample().set_gt_label(n) for n in labels]


def test_the_loss_is_its_equation(student, teacher_file):
    model = student(temperature=3.0, weight=0.5, label_weight=2.0).eval()
    teacher = load_model(checkpoint=teacher_file)
    pixels = 255 * torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        told = teacher((pixels - 127.5) / 127.5)
        said = model((pixels - 100) / 50)
        losses = model.loss((pixels - 100) / 50, samples(2, None, 0))
    t, s = (told / 3).softmax(-1), (said / 3).softmax(-1)
    divergence = 0.5 * 9 * (t * (t.log() - s.log())).sum(-1).mean()
    torch.testing.assert_close(losses['loss_distillation'], divergence, rtol=1e-4, atol=1e-5)
    own = F.cross_entropy(said[[0, 2]], torch.tensor([2, 0]))
    torch.testing.assert_close(losses['loss'], 2 * own, rtol=1e-4, atol=1e-5)
    assert list(model.loss((pixels - 100) / 50, samples(None, None, None))) == ['loss_distillation']
    ignoring = student(label_weight=0.0)
    assert list(ignoring.loss((pixels - 100) / 50, samples(1, 1, 1))) == ['loss_distillation']


def test_an_adapter_moves_to_another_backbone(student, tmp_path):
    torch.manual_seed(2)
    model = student(temperature=1.0)
    images = torch.randn(8, 3, 32, 32)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert not {id(p) for p in model.teacher.model.parameters()} & {id(p) for p in trained}
    optimizer = torch.optim.Adam(trained, lr=2e-2)
    model.train()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        (loss,) = model.loss(images, samples(*[None] * 8)).values()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert not model.teacher.model.training
    assert not any('teacher' in name for name in model.state_dict())
    twin = copy.deepcopy(model)
    assert twin.teacher is model.teacher


def test_images_of_another_size_are_resized(student):
    model = student()
    images = torch.randn(2, 3, 48, 48)
    expected = model.teacher.model(
        F.interpolate((images * 50 + 100 - 127.5) / 127.5, (32, 32), mode='bicubic', antialias=True)
    )
    torch.testing.assert_close(model.teacher.logits(images, model.data_preprocessor), expected)


def test_a_teacher_of_other_classes_is_refused(student, teacher_file, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        student(config=None).teacher.__class__(tmp_path / 'none.safetensors')
    cfg = config_of('vit', tmp_path / 'vit.pth', dict(type='LinearProbe'))
    described = cfg.model.to_dict()
    described['head']['num_classes'] = 5
    with pytest.raises(ValueError, match=r'teacher tells 3 classes, but model'):
        MODELS.build({**described, 'teacher': dict(checkpoint=str(teacher_file))})
    with pytest.raises(CheckpointError, match='only an adapter file describes its model'):
        MODELS.build({**described, 'teacher': dict(checkpoint='x.pth')})
    # What is no training needs no teacher.
    described['teacher'] = dict(checkpoint=str(tmp_path / 'none.safetensors'))
    assert build_model(Config(dict(model=described))).teacher is None
