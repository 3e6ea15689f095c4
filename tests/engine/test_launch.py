"""Checks before a run."""

import re

import pytest
import torch
from mmengine.config import Config, DictAction

from gleam_mm.config import recipes
from gleam_mm.engine.launch import build_runner, check_backbone, check_schedule
from gleam_mm.registry import MODELS


@pytest.mark.parametrize('epochs', [1, 2, 10])
def test_following_the_advice_on_a_long_warmup_ends_the_error(epochs):
    cfg = Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, end=10),
                dict(type='CosineAnnealingLR', begin=10),
            ],
        )
    )
    with pytest.raises(ValueError, match=f'max_epochs={epochs}, but param_scheduler.1 beg') as told:
        check_schedule(cfg)
    advised = re.search('--cfg-options (.+)', str(told.value))[1].split()
    pairs = [word.split('=', 1) for word in advised]
    cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
    check_schedule(cfg)


VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=64),
    img_size=16,
    patch_size=8,
)


def classifier(backbone=VIT, petl=dict(type='LoRA'), **options):  # noqa: B006
    head = dict(type='LinearClsHead', in_channels=16, num_classes=2)
    return Config(
        dict(model=dict(type='PETLClassifier', backbone=backbone, petl=petl, head=head, **options))
    )


def test_a_frozen_backbone_of_random_weights_must_be_meant():
    with pytest.raises(ValueError, match=r'model\.backbone has no pretrained weights'):
        check_backbone(classifier())
    pretrained = dict(type='Pretrained', checkpoint='vit.pth')
    for meant in (
        classifier(dict(VIT, init_cfg=pretrained)),
        classifier(dict(VIT, init_cfg=[dict(type='TruncNormal', layer='Linear'), pretrained])),
        classifier(dict(type='TIMMBackbone', model_name='vit_tiny_patch16_224', pretrained=True)),
        classifier(petl=dict(type='FullTuning')),
        classifier(allow_random_backbone=True),
    ):
        check_backbone(meant)


def test_a_random_backbone_that_is_meant_is_the_same_in_every_run():
    fingerprints = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = MODELS.build(classifier(allow_random_backbone=True).model)
        model.init_weights()
        fingerprints.add(model.backbone_fingerprint())
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'optim_wrapper.optimizer.type': 'AdamX'},
            r"optimizer.type='AdamX': there is no such optimizer, did you mean 'Adam\w*'\?",
        ),
        ({'model.head': None}, 'model.head is missing: add dict'),
    ],
)
def test_what_is_missing_is_told_before_anything_is_built(options, message):
    cfg = recipes.load('vit-mini_gleam-l_mini-digits', options)
    with pytest.raises(ValueError, match=message):
        build_runner(cfg, 'none')
