"""Whose types configs name: bare within, in full for others, from any folder and package."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as THEIRS

from gleam_mm.config import recipes
from gleam_mm.config.scopes import with_scopes, without_scopes
from gleam_mm.models import PETLClassifier

BOTH = """
_base_ = [
    'mmpretrain::_base_/models/vit-base-p16.py',
    'gleam_mm::_base_/methods/lora.py',
    'gleam_mm::_base_/datasets/folder.py',
    'gleam_mm::_base_/schedules/petl_100e.py',
    'gleam_mm::_base_/default_runtime.py',
]
model = dict(
    type='PETLClassifier',
    petl=_base_.method,
    head=dict(_delete_=True, type='LinearClsHead', num_classes=3, in_channels=768),
)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def scopes(value):
    """All `_scope_` in a config."""
    if isinstance(value, dict):
        return [*([value['_scope_']] if '_scope_' in value else []), *scopes([*value.values()])]
    return [scope for item in value for scope in scopes(item)] if isinstance(value, list) else []


def test_bases_of_both_packages(tmp_path):
    (tmp_path / 'mine.py').write_text(BOTH)
    assert 'mmpretrain' in scopes(Config.fromfile('mine.py').to_dict())
    cfg = recipes.load('mine.py')
    assert not scopes(cfg.to_dict())
    assert cfg.model.type == 'PETLClassifier'
    assert cfg.model.backbone.type == 'VisionTransformer'
    assert cfg.model.petl.type == 'LoRA'


def test_others_find_our_types_in_what_we_dump(tmp_path):
    with_scopes(recipes.load('vit-mini_lora_mini-digits')).dump(tmp_path / 'dumped.py')
    cfg = Config.fromfile('dumped.py')
    assert cfg.custom_imports.imports == ['gleam_mm']
    assert cfg.runner_type == 'gleam_mm.PETLRunner'
    assert cfg.model.type == 'gleam_mm.PETLClassifier'
    assert cfg.model.petl.type == 'gleam_mm.LoRA'
    assert cfg.model.head.type == 'LinearClsHead'  # which MMPretrain has
    cfg.model.head.num_classes = 10
    for scope, registry in (('mmpretrain', THEIRS), ('mmengine', ROOT)):
        with DefaultScope.overwrite_default_scope(scope):
            assert registry.get('gleam_mm.PETLClassifier') is PETLClassifier
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert isinstance(THEIRS.build(cfg.model), PETLClassifier)


def test_a_dump_is_loaded_as_what_it_was_made_of(tmp_path):
    cfg = recipes.load('vit-mini_gleam-l_mini-digits')
    with_scopes(cfg).dump(tmp_path / 'dumped.py')
    again = recipes.load('dumped.py').to_dict()
    assert again.pop('custom_imports') == dict(imports=['gleam_mm'])
    assert again == cfg.to_dict()


def test_a_loader_is_known_to_others_by_its_name():
    dataset = with_scopes(recipes.load('vit-b_lora_folder')).test_dataloader.dataset
    assert dataset.type == 'gleam_mm.CustomDataset'
    assert dataset.pipeline[0].type == 'LoadImageFromFile'


def test_imports_of_the_user_stay():
    cfg = Config(dict(custom_imports=dict(imports=['mine'], allow_failed_imports=True)))
    told = with_scopes(cfg).custom_imports
    assert told == dict(imports=['gleam_mm', 'mine'], allow_failed_imports=True)


def test_other_default_scopes_stay():
    cfg = Config(dict(default_scope='mine', model=dict(type='gleam_mm.LoRA', _scope_='mmpretrain')))
    assert without_scopes(cfg) is cfg


NEW_STYLE = """
from mmengine.config import read_base

from gleam_mm.models import PETLClassifier
from gleam_mm.petl import GLEAM

with read_base():
    from gleam_mm.configs._base_.default_runtime import *
    from gleam_mm.configs._base_.schedules.petl_100e import *
    from .tiny import *

model.update(type=PETLClassifier, petl=dict(type=GLEAM, rank=4))
"""
TINY = """
model = dict(
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
    ),
    head=dict(type='LinearClsHead', in_channels=32, num_classes=3),
    allow_random_backbone=True,
)
"""


def test_new_style(tmp_path):
    (tmp_path / 'tiny.py').write_text(TINY)
    (tmp_path / 'mine.py').write_text(NEW_STYLE)
    cfg = recipes.load('mine.py')
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.default_hooks.checkpoint.type == 'AdapterCheckpointHook'
    (tmp_path / 'sub').mkdir()
    with_scopes(cfg).dump(tmp_path / 'sub' / 'dumped.py')
    for config in (cfg, recipes.load('sub/dumped.py')):
        with DefaultScope.overwrite_default_scope('gleam_mm'):
            model = THEIRS.build(config.model)
        assert isinstance(model, PETLClassifier)
        assert type(model.petl).__name__ == 'GLEAM'
