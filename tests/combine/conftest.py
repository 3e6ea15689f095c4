"""Small adapter files of one backbone, as trainings write them."""

import copy

import pytest
import torch
from backbones import CONFIGS, WIDTH
from mmengine.config import Config

from gleam_mm.checkpoint import FINGERPRINT, save_adapter
from gleam_mm.models import build_model
from gleam_mm.registry import MODELS


@pytest.fixture(scope='session')
def tiny_weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), file)
    return file


@pytest.fixture
def config_for(tiny_weights):
    """The config of a model with some method."""

    def make(petl, classes=4):
        named = dict(type='Pretrained', checkpoint=str(tiny_weights))
        model = dict(
            type='PETLClassifier',
            backbone={**copy.deepcopy(CONFIGS['vit']), 'init_cfg': named},
            head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=classes),
            petl=copy.deepcopy(petl),
        )
        return Config(dict(default_scope='gleam_mm', model=model))

    return make


@pytest.fixture
def trained(config_for, tmp_path):
    """Writes the adapter of a model whose parameters have moved; gives the path and the model."""

    def make(petl, seed=1, classes='abcd', **metadata):
        model = build_model(config_for(petl, len(classes)))
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        file = tmp_path / f'{len(list(tmp_path.iterdir()))}.safetensors'
        tensors = {name: t for name, t in model.state_dict().items() if name != FINGERPRINT}
        known = dict(
            model.description,
            classes=list(classes),
            backbone_fingerprint=model.backbone_fingerprint(),
            **metadata,
        )
        save_adapter(file, tensors, known)
        return file, model

    return make
