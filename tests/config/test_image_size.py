"""Images are as large as the backbone expects them, unless a config says otherwise."""

import numpy as np
import pytest
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.config.image_size import fill_image_size
from gleam_mm.registry import TRANSFORMS


def shapes(cfg):
    """Shapes that the pipelines of training and test make of a picture of 300 x 400."""
    found = []
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        data = {'img': np.zeros((300, 400, 3), np.uint8), 'gt_label': 0}
        for transform in loader.dataset.pipeline[1:-1]:
            data = TRANSFORMS.build(transform)(data)
        found.append(data['img'].shape[:2])
    return found


@pytest.mark.parametrize('dataset', ['folder', 'vtab-dtd', 'fgvc-cars'])
@pytest.mark.parametrize(
    ('backbone', 'size'),
    [('vit-mini', 32), ('swin-mini', 32), ('vit-b', 224), ('timm-swin-b', 224)],
)
def test_a_dataset_follows_the_backbone(backbone, dataset, size):
    cfg = recipes.load(f'{backbone}_lora_{dataset}')
    assert shapes(cfg) == [(size, size)] * 2


def test_the_edge_before_a_crop_is_a_little_larger():
    edges = [recipes.load(f'{name}_lora_folder').test_pipeline[1] for name in ('vit-b', 'vit-mini')]
    assert [edge.scale for edge in edges] == [256, 37]


def test_options_win():
    options = {'model.backbone.img_size': 64, 'test_dataloader.dataset.pipeline.1.scale': 48}
    assert shapes(recipes.load('vit-mini_lora_vtab-dtd', options)) == [(64, 64), (48, 48)]


@pytest.mark.parametrize(
    ('backbone', 'size'),
    [
        (dict(type='VisionTransformer', img_size=(64, 96)), (64, 96)),
        (dict(type='VisionTransformer'), (224, 224)),
        (dict(type='TIMMBackbone', model_name='vit_base_patch16_384'), (384, 384)),
        (dict(type='TIMMBackbone', model_name='vit_base_patch16_384', img_size=96), (96, 96)),
    ],
)
def test_backbones_say_what_they_expect(backbone, size):
    crop = dict(type='RepeatDataset', dataset=dict(pipeline=[dict(type='Resize', scale=None)]))
    cut = dict(dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=None)]))
    random = dict(dataset=dict(pipeline=[dict(type='RandomResizedCrop', scale=None)]))
    loaders = dict(train_dataloader=crop, val_dataloader=random, test_dataloader=cut)
    cfg = Config(dict(model=dict(backbone=backbone), **loaders))
    fill_image_size(cfg)
    data = {'img': np.zeros((400, 500, 3), np.uint8)}
    for loader in (cfg[name] for name in loaders):
        (transform,) = loader.dataset.pipeline
        assert TRANSFORMS.build(transform)(dict(data))['img'].shape[:2] == size
