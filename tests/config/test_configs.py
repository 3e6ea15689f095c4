"""Every config parses, every combination composes, and the VTAB files say what VTAB is."""

from pathlib import Path

import pytest
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.datasets.vtab import VTAB_TASKS
from gleam_mm.registry import DATASETS, HOOKS, MODELS, OPTIMIZERS, RUNNERS

CONFIGS = recipes.config_root()
FILES = sorted(file for file in CONFIGS.rglob('*.py') if not {'_base_', 'sweeps'} & {*file.parts})
FAMILIES = recipes.families()

# Dataset file -> folder, classes, images of the test split.
VTAB = {
    'cifar': ('cifar', 100),
    'caltech101': ('caltech101', 102),
    'dtd': ('dtd', 47),
    'flowers102': ('oxford_flowers102', 102),
    'pets': ('oxford_iiit_pet', 37),
    'svhn': ('svhn', 10),
    'sun397': ('sun397', 397),
    'camelyon': ('patch_camelyon', 2),
    'eurosat': ('eurosat', 10),
    'resisc45': ('resisc45', 45),
    'retinopathy': ('diabetic_retinopathy', 5),
    'clevr-count': ('clevr_count', 8),
    'clevr-dist': ('clevr_dist', 6),
    'dmlab': ('dmlab', 6),
    'kitti': ('kitti', 4),
    'dsprites-loc': ('dsprites_loc', 16),
    'dsprites-ori': ('dsprites_ori', 16),
    'smallnorb-azi': ('smallnorb_azi', 18),
    'smallnorb-ele': ('smallnorb_ele', 9),
}


def types_exist(cfg):
    assert RUNNERS.get(cfg.runner_type)
    for part in (cfg.model, cfg.model.backbone, cfg.model.head):
        assert MODELS.get(part.type), part.type
    assert OPTIMIZERS.get(cfg.optim_wrapper.optimizer.type)
    assert DATASETS.get(cfg.train_dataloader.dataset.type)
    for hook in [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]:
        assert HOOKS.get(hook.type), hook.type


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_config_file_parses(file):
    types_exist(recipes.load(file))


SEEN = ('vit-b', 'swin-b', 'vit-mini', 'vit-b-siglip2')  # others set the same keys as one of these


@pytest.mark.parametrize(
    'backbone',
    [pytest.param(b, marks=() if b in SEEN else pytest.mark.slow) for b in FAMILIES['backbones']],
)
def test_every_file_composes_with_every_backbone(backbone):
    # Methods and datasets set other keys, so that a file of each stands for all others.
    for method in FAMILIES['methods']:
        cfg = recipes.load(f'{backbone}_{method}_vtab-dtd')
        types_exist(cfg)
        assert MODELS.get(cfg.model.petl.type)
    preset = recipes.load(f'{backbone}_gleam-l_vtab-dtd').model.petl.to_dict()
    for dataset in FAMILIES['datasets']:
        cfg = recipes.load(f'{backbone}_gleam-l_{dataset}')
        types_exist(cfg)
        assert cfg.model.petl.to_dict() == preset


def test_methods_and_datasets_set_other_keys():
    keys = {
        family: {
            key
            for name in FAMILIES[family]
            for key in Config.fromfile(CONFIGS / '_base_' / family / f'{name}.py')
        }
        for family in ('methods', 'datasets')
    }
    assert keys['methods'] == {'method'}
    assert not keys['datasets'] & {'method', 'model'}


def test_there_is_a_file_for_each_vtab_task():
    assert {name for name in FAMILIES['datasets'] if name.startswith('vtab-')} == {
        f'vtab-{name}' for name in VTAB
    }
    assert sorted(folder for folder, _ in VTAB.values()) == sorted(VTAB_TASKS)


@pytest.mark.parametrize('name', VTAB)
def test_a_vtab_file_has_the_protocol_and_the_classes(name):
    cfg = recipes.load(f'vit-b_gleam-l_vtab-{name}')
    folder, classes = VTAB[name]
    assert cfg.data_preprocessor.num_classes == classes == VTAB_TASKS[folder].num_classes
    train, test = cfg.train_dataloader, cfg.test_dataloader
    assert (train.dataset.task, train.dataset.split) == (folder, 'train800val200')
    assert (test.dataset.task, test.dataset.split) == (folder, 'test')
    assert train.batch_size == 32
    assert cfg.val_dataloader is None
    assert cfg.train_cfg.max_epochs == 100
    steps = [step.type for step in train.dataset.pipeline]
    assert steps == [step.type for step in test.dataset.pipeline]
    assert steps == ['LoadImageFromFile', 'Resize', 'PackInputs']


def test_normalisation_is_one_line(tmp_path):
    base = CONFIGS / 'gleam' / 'vit-b_gleam-l_vtab-cifar.py'
    file = tmp_path / 'half.py'
    file.write_text(
        f'_base_ = {str(base)!r}\n'
        'data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])\n'
    )
    preprocessor = recipes.load(file).data_preprocessor
    assert preprocessor.mean == preprocessor.std == [127.5] * 3
    assert preprocessor.num_classes == 100


def test_examples_are_a_handful_of_lines():
    for file in FILES:
        if file.parent.name not in ('pretrain', 'incremental'):  # with schedules of their own
            assert len(file.read_text().splitlines()) <= 12, file


def test_no_config_is_named_twice():
    names = [Path(file).stem for file in FILES]
    assert len(names) == len(set(names))
