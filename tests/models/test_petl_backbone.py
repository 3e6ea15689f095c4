"""An adapted backbone in a model with a feature pyramid, as detectors and segmentors have one."""

import copy

import pytest
import timm
import torch
from backbones import CONFIGS
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope, Registry
from mmengine.runner.checkpoint import load_checkpoint, save_checkpoint
from torch import nn
from torch.nn import functional as F

from gleam_mm.checkpoint import CheckpointError
from gleam_mm.models import PETLBackbone
from gleam_mm.registry import MODELS

VIT = dict(copy.deepcopy(CONFIGS['vit']), out_type='featmap', out_indices=(0, 1))
SWIN = dict(copy.deepcopy(CONFIGS['swin']), out_indices=(0, 1))
TIMM = dict(copy.deepcopy(CONFIGS['timm-vit']), type='TIMMFeatureMaps', out_indices=(0, 1))
SWINV2 = dict(
    type='TIMMFeatureMaps',
    model_name='swinv2_tiny_window8_256',
    out_indices=(0, 1),
    **dict(img_size=32, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4),
)
CHANNELS = {'vit': (32, 32), 'swin': (16, 32), 'timm': (32, 32), 'swinv2': (16, 32)}
CONFIG = {'vit': VIT, 'swin': SWIN, 'timm': TIMM, 'swinv2': SWINV2}


class Pyramid(BaseModel):
    """Laterals, a top-down path, and a score for every pixel of the finest map."""

    def __init__(self, backbone, channels):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.laterals = nn.ModuleList(nn.Conv2d(number, 8, 1) for number in channels)
        self.score = nn.Conv2d(8, 3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        fine, coarse = (
            lateral(features)
            for lateral, features in zip(self.laterals, self.backbone(inputs), strict=True)
        )
        scores = self.score(fine + F.interpolate(coarse, size=fine.shape[-2:]))
        return dict(loss=scores.square().mean()) if mode == 'loss' else scores


def pyramid(kind, petl, **options):
    backbone = dict(type='PETLBackbone', backbone=copy.deepcopy(CONFIG[kind]), petl=petl)
    model = Pyramid({**backbone, 'allow_random_backbone': True, **options}, CHANNELS[kind])
    model.init_weights()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # norms of SwinV2 start at zero, so that its blocks do nothing
        for parameter in model.backbone.backbone.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


@pytest.mark.parametrize('kind', CONFIG)
@pytest.mark.parametrize('petl', [dict(type='GLEAM', rank=2), [dict(type='LoRA', rank=2)]])
def test_a_pyramid_trains_and_its_checkpoint_is_slim(kind, petl, images, tmp_path):
    model = pyramid(kind, petl)
    plain = copy.deepcopy(model.backbone.backbone)
    before = [t.clone() for t in model.backbone(images)]
    frozen = {name: p.clone() for name, p in plain.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    losses = []
    model.train()
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(images, mode='loss')['loss']
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    model.eval()
    for name, parameter in model.backbone.backbone.named_parameters():
        assert torch.equal(parameter, frozen[name])
    assert not torch.equal(model.backbone(images)[-1], before[-1])
    save_checkpoint(dict(state_dict=model.state_dict()), str(tmp_path / 'model.pth'))
    saved = torch.load(tmp_path / 'model.pth', weights_only=True)['state_dict']
    assert not [key for key in saved if key.startswith('backbone.backbone.')]
    again = pyramid(kind, petl)
    load_checkpoint(again, str(tmp_path / 'model.pth'), strict=True)
    again.eval()
    assert torch.equal(again(images), model(images))


def test_other_frozen_weights_or_options_are_refused():
    model = pyramid('vit', dict(type='LoRA', rank=2))
    state = model.state_dict()
    other = pyramid('vit', dict(type='LoRA', rank=2))
    with torch.no_grad():
        next(other.backbone.backbone.parameters()).add_(1)
    with pytest.raises(CheckpointError, match='trained on a backbone with the fingerprint'):
        other.load_state_dict(state)
    other = pyramid('vit', dict(type='LoRA', rank=2, alpha=3.0))
    with pytest.raises(CheckpointError, match=r'petl\.alpha is 8\.0 in the checkpoint but 3'):
        other.load_state_dict(state)
    heads = {key: value for key, value in state.items() if not key.startswith('backbone.')}
    assert other.load_state_dict(heads, strict=False).missing_keys


def test_it_is_built_in_the_scope_of_a_library_beside_mmpretrain(images):
    """Which knows neither our methods nor MMPretrain's backbones, or has others of their names."""
    theirs = Registry('model', parent=ROOT, scope='segmentors')
    theirs.register_module(name='SwinTransformer', module=nn.Identity)
    config = dict(backbone=copy.deepcopy(SWIN), petl=dict(type='GLEAM', rank=2))
    try:
        with DefaultScope.overwrite_default_scope('segmentors'):
            model = theirs.build(
                dict(type='gleam_mm.PETLBackbone', **config, allow_random_backbone=True)
            )
    finally:
        ROOT.children.pop('segmentors')
    assert [tuple(one.shape[:2]) for one in model(images)] == [(len(images), 16), (len(images), 32)]


def test_random_weights_have_to_be_meant():
    with pytest.raises(ValueError, match='would have random weights'):
        PETLBackbone(copy.deepcopy(VIT), dict(type='LoRA'))


def test_weights_of_timm_are_loaded_and_give_its_own_maps(images, tmp_path):
    options = {k: v for k, v in CONFIGS['timm-vit'].items() if k not in ('type', 'model_name')}
    reference = timm.create_model('vit_tiny_patch16_224', num_classes=0, **options).eval()
    state = {f'timm_model.{key}': value for key, value in reference.state_dict().items()}
    torch.save(state, tmp_path / 'vit.pth')
    weights = dict(type='Pretrained', checkpoint=str(tmp_path / 'vit.pth'))
    model = PETLBackbone(dict(TIMM, init_cfg=weights), dict(type='GLEAM', rank=2))
    model.eval()
    expected = reference.forward_intermediates(images, indices=[0, 1], intermediates_only=True)
    with torch.no_grad():
        for ours, theirs in zip(model(images), expected, strict=True):
            assert torch.equal(ours, theirs)
