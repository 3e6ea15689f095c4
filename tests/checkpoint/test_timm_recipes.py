"""Recipes on timm's models: their weights, their positions, and how images are normalised."""

import os
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from timm.models import get_pretrained_cfg

from gleam_mm.checkpoint import load_backbone
from gleam_mm.checkpoint.convert import ConversionError, convert, convert_file
from gleam_mm.checkpoint.sources import SOURCES
from gleam_mm.config import recipes
from gleam_mm.config.statistics import pretrained_statistics
from gleam_mm.layouts import fit_positions
from gleam_mm.registry import MODELS

POOLED = [name for name, source in SOURCES.items() if source.target == 'timm-pooled']
TINY = dict(embed_dim=32, depth=2, num_heads=2)
VARIABLE = 'GLEAM_DINOV2_S'


def settings(backbone):
    return Config.fromfile(recipes.families()['backbones'][backbone]).model


def build(config):
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        return MODELS.build(config)


@pytest.mark.parametrize('backbone', POOLED)
def test_a_recipe_names_what_is_fetched_and_prepares_images_for_it(backbone):
    name = SOURCES[backbone].repository.removeprefix('timm/')
    own, known = settings(backbone).backbone, get_pretrained_cfg(name)
    assert own.model_name == name
    cfg = recipes.load(f'{backbone}_gleam-l_folder')
    for ours, theirs in (
        (cfg.data_preprocessor.mean, known.mean),
        (cfg.data_preprocessor.std, known.std),
    ):
        assert ours == pytest.approx([255 * value for value in theirs], abs=0.01)
    crop = next(t for t in cfg.test_dataloader.dataset.pipeline if t.type == 'CenterCrop')
    assert crop.crop_size == own.img_size


@pytest.mark.parametrize('backbone', SOURCES)
def test_what_images_were_normalised_by_is_recorded(backbone):
    known = get_pretrained_cfg(SOURCES[backbone].repository.removeprefix('timm/'))
    told = pretrained_statistics(settings(backbone).backbone)
    assert told.mean == pytest.approx([255 * value for value in known.mean], abs=0.01)
    assert told.std == pytest.approx([255 * value for value in known.std], abs=0.01)


def test_a_record_changes_no_recipe():
    cfg = recipes.load('vit-b_gleam-l_vtab-dtd')
    assert cfg.data_preprocessor.mean == recipes.NORMALIZATIONS['imagenet']['mean']
    assert 'pretrained_normalize' not in cfg


def test_numbers_of_ones_own_stay():
    options = {'data_preprocessor.mean': [1.0, 2.0, 3.0]}
    assert recipes.load('vit-b-clip_lora_folder', options).data_preprocessor.mean == [1, 2, 3]
    options = {'data_preprocessor.normalize': 'half'}
    assert recipes.load('vit-b-clip_lora_folder', options).data_preprocessor.mean == [127.5] * 3
    assert 'normalize' not in recipes.load('vit-b-clip_lora_folder')


@pytest.mark.parametrize('name', recipes.NORMALIZATIONS)
def test_numbers_of_ones_own_stay_where_they_have_a_name(name, tmp_path):
    own = recipes.NORMALIZATIONS[name]
    options = {f'data_preprocessor.{key}': numbers for key, numbers in own.items()}
    told = recipes.load('vit-b-clip_lora_folder', options).data_preprocessor
    assert {key: told[key] for key in own} == own
    base = recipes.export('vit-b-clip_lora_folder', tmp_path / 'base.py')
    file = tmp_path / 'own.py'
    file.write_text(f'_base_ = {base.name!r}\ndata_preprocessor = {own}\n')
    told = recipes.load(file).data_preprocessor
    assert {key: told[key] for key in own} == own


def test_numbers_in_the_options_win_over_a_name_in_the_config(tmp_path):
    base = recipes.export('vit-b-clip_lora_folder', tmp_path / 'base.py')
    file = tmp_path / 'own.py'
    file.write_text(f"_base_ = {base.name!r}\ndata_preprocessor = dict(normalize='half')\n")
    told = recipes.load(file, {'data_preprocessor.mean': [1.0, 2.0, 3.0]}).data_preprocessor
    assert (told.mean, told.std) == ([1, 2, 3], [127.5] * 3)


@pytest.mark.parametrize(
    ('recipe', 'name'),
    [
        ('vit-b_lora_folder', 'imagenet'),
        ('vit-b_lora_fgvc-cars', 'imagenet'),
        ('vit-b_lora_mini-digits', 'half'),
        ('vit-b-clip_lora_mini-digits', 'clip'),
        ('vit-mini_lora_folder', 'half'),
    ],
)
def test_numbers_that_nobody_set_are_the_backbones_or_else_the_datasets(recipe, name):
    told = recipes.load(recipe).data_preprocessor
    assert {key: told[key] for key in ('mean', 'std')} == recipes.NORMALIZATIONS[name]
    assert not {'normalize', 'default_normalize'} & {*told}


@pytest.mark.parametrize('backbone', POOLED)
def test_the_head_reads_what_the_backbone_gives(backbone):
    own = settings(backbone)
    with torch.device('meta'):
        model = timm.create_model(own.backbone.model_name, num_classes=0)
    assert own.head.in_channels == model.head_hidden_size


@pytest.mark.parametrize('kind', ['TIMMBackbone', 'PooledTIMMBackbone'])
@pytest.mark.parametrize(
    'name', ['vit_small_patch14_dinov2', 'vit_small_patch14_reg4_dinov2', 'eva02_base_patch14_224']
)
def test_positions_are_resampled_as_timm_does(kind, name, tmp_path):
    published = timm.create_model(name, img_size=70, **TINY)
    torch.nn.init.normal_(published.pos_embed)
    state = published.state_dict()
    loaded = dict(pretrained=True, pretrained_cfg_overlay=dict(state_dict=dict(state)))
    expected = timm.create_model(name, img_size=42, num_classes=0, **TINY, **loaded)
    target = {'TIMMBackbone': 'timm'}.get(kind, 'timm-pooled')
    torch.save(convert(state, target).tensors, tmp_path / 'weights.pth')
    backbone = build(dict(type=kind, model_name=name, img_size=42, **TINY))
    fit_positions(backbone)
    load_backbone(backbone, tmp_path / 'weights.pth')
    assert torch.equal(backbone.timm_model.pos_embed, expected.pos_embed)


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('swinv2_tiny_window8_256', dict(img_size=32, patch_size=2, window_size=4, depths=(1, 1))),
        ('beit_base_patch16_224', dict(img_size=32, **TINY)),
        ('pvt_v2_b0', {}),
        ('vit_small_patch16_dinov3', dict(img_size=32, **TINY)),
    ],
)
def test_names_of_other_families_are_kept(name, options, tmp_path):
    state = timm.create_model(name, num_classes=3, **options).state_dict()
    computed = {'layers.0.blocks.0.attn_mask': torch.ones(1)} if 'swin' in name else {}
    torch.save(convert({**state, **computed}, 'timm-pooled').tensors, tmp_path / 'weights.pth')
    backbone = build(dict(type='PooledTIMMBackbone', model_name=name, **options))
    load_backbone(backbone, tmp_path / 'weights.pth')
    with pytest.raises(ConversionError):
        convert(state, 'mmpretrain')


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f'{VARIABLE} names no file of weights')
@torch.no_grad()
def test_dinov2_on_its_true_weights(tmp_path):
    """The recipe loads timm's file of vit_small_patch14_dinov2; features are timm's own."""
    file = Path(os.environ[VARIABLE])
    convert_file(file, tmp_path / 'weights.safetensors', 'timm-pooled')
    cfg = recipes.load('vit-s-dinov2_gleam-l_folder')
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'weights.safetensors')
    cfg.model.head.num_classes = 10
    classifier = build(cfg.model)
    classifier.eval()
    images = torch.randn(2, 3, 224, 224)
    loaded = dict(pretrained=True, pretrained_cfg_overlay=dict(file=str(file)))
    reference = timm.create_model('vit_small_patch14_dinov2', img_size=224, num_classes=0, **loaded)
    expected = reference.eval()(images)
    torch.testing.assert_close(classifier.extract_feat(images)[0], expected, atol=1e-5, rtol=1e-4)
    assert sum(p.numel() for p in classifier.petl.parameters()) > 0
