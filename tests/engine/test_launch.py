"""Checks before a run."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction

from gleam_mm.config import recipes
from gleam_mm.datasets.sources import Source
from gleam_mm.engine import checks, launch
from gleam_mm.engine.checks import check_backbone, check_schedule
from gleam_mm.engine.launch import build_runner
from gleam_mm.fileio import claim
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


@pytest.mark.parametrize(
    'options',
    [
        {'train_dataloader.dataset.skip_unreadable': 10},
        {'train_dataloader.dataset': dict(skip_unreadable=10)},
        {'train_dataloader': dict(batch_size=7, dataset=dict(skip_unreadable=10))},
        {'train_dataloader': dict(batch_size=7), 'train_dataloader.dataset.skip_unreadable': 10},
    ],
)
def test_options_of_datasets_count_whose_splits_a_source_tells(options):
    cfg = recipes.load('vit-mini_lora_folder', options)
    data = dict(type='CustomDataset', data_root='birds')
    launch.use_source(cfg, Source('folder', data, data, data), options)
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    assert (train.data_root, train.skip_unreadable) == ('birds', 10)
    assert train.pipeline == recipes.load('vit-mini_lora_folder').train_dataloader.dataset.pipeline
    assert 'skip_unreadable' not in val


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
            r"optimizer.type='AdamX': there is no such optimizer \(did you mean 'Adam\w*'\?",
        ),
        (
            {'optim_wrapper.optimizer.lrr': 1.0},
            r"optimizer\.lrr: AdamW has no such option \(did you mean 'lr'\?\); it has amsgrad, ",
        ),
        (
            {'optim_wrapper.clip_gard': None},
            r"wrapper\.clip_gard: OptimWrapper has no such option \(did you mean 'clip_grad'\?",
        ),
        (
            {'optim_wrapper.clip_grad.max_nrm': 1.0},
            r"clip_grad\.max_nrm: clip_grad_norm_ has no such option \(did you mean 'max_norm'\?",
        ),
        (
            {'optim_wrapper.clip_grad': dict(type='value', max_norm=1.0)},
            r'clip_grad\.max_norm: clip_grad_value_ has no such option.*; it has clip_value, ',
        ),
        (
            {'optim_wrapper.clip_grad': dict(norm_type=1.0, _delete_=True)},
            'optim_wrapper.clip_grad: clip_grad_norm_ needs max_norm',
        ),
        (
            {'val_evaluator.topk': (1, 50)},
            r'val_evaluator\.topk=\(1, 50\): there are 10 classes; choose 10 at most',
        ),
        (
            {'test_evaluator': [dict(type='Accuracy'), dict(type='MultiLabelMetric', topk=11)]},
            r'test_evaluator\.1\.topk=11: there are 10 classes',
        ),
        ({'model.head': None}, 'model.head is missing: add dict'),
        ({'train_cfg.max_epoch': 2}, r"max_epoch: EpochTrainLoop has no .*'max_epochs'\?"),
        ({'default_hooks.checkpoint.intervall': 3}, r"intervall: .* no .*'interval'\?"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_built(options, message):
    cfg = recipes.load('vit-mini_gleam-l_mini-digits', options)
    with pytest.raises(ValueError, match=message):
        build_runner(cfg, 'none')


def test_a_work_dir_that_is_a_file_is_told(tmp_path):
    (tmp_path / 'robin.jpg').touch()
    for folder in (tmp_path / 'robin.jpg', tmp_path / 'robin.jpg' / 'below'):
        with pytest.raises(NotADirectoryError, match=r'robin\.jpg is a file: name .*--work-dir'):
            launch.set_work_dir(Config(), str(folder))


def work_dir(folder, named=None, resume=None):
    cfg = Config(dict(model={}), cfg_text='# tiny', filename='tiny.py')
    told = launch.set_training_dir(cfg, named, resume)
    return cfg.work_dir, told


def test_a_second_training_goes_beside_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = Path('work_dirs/tiny'), Path('work_dirs/tiny-2')
    assert work_dir(tmp_path) == (str(first), None)
    for folder in (first, second):
        folder.mkdir(parents=True)
    (first / 'notes.txt').write_text('no training')
    assert work_dir(tmp_path) == (str(first), None)
    (first / 'best_accuracy_top1_epoch_1.pth').touch()
    assert work_dir(tmp_path, resume='auto') == (str(first), None)
    taken, told = work_dir(tmp_path)
    assert taken == str(second)
    assert told == 'work_dirs/tiny has a training already: this one goes to work_dirs/tiny-2'
    (second / 'adapter.safetensors').touch()
    assert work_dir(tmp_path)[0] == 'work_dirs/tiny-3'
    for resume in ('', 'auto'):
        assert work_dir(tmp_path, resume=resume)[0] == str(second)
    assert work_dir(tmp_path, resume=str(first / 'epoch_1.pth')) == (str(first), None)
    taken, told = work_dir(tmp_path, resume='elsewhere/epoch_1.pth')
    assert taken == 'work_dirs/tiny-3' and told.endswith('this one goes to work_dirs/tiny-3')


def test_a_folder_that_is_named_is_not_trained_in_twice(tmp_path):
    assert work_dir(tmp_path, str(tmp_path)) == (str(tmp_path), None)
    (tmp_path / 'last_checkpoint').touch()
    with pytest.raises(FileExistsError, match=r'has a training already.*--resume, or name another'):
        work_dir(tmp_path, str(tmp_path))
    its_own = str(tmp_path / 'epoch_1.pth')
    for resume in ('', 'auto', its_own):
        assert work_dir(tmp_path, str(tmp_path), resume=resume) == (str(tmp_path), None)


def test_a_checkpoint_of_one_training_does_not_go_on_in_the_folder_of_another(tmp_path):
    there = tmp_path / 'there'
    there.mkdir()
    (there / 'adapter.safetensors').touch()
    other = str(tmp_path / 'elsewhere' / 'epoch_3.pth')
    with pytest.raises(
        FileExistsError, match=r'a training already, which .*epoch_3\.pth is not of'
    ):
        work_dir(tmp_path, str(there), resume=other)
    assert work_dir(tmp_path, str(tmp_path / 'new'), resume=other) == (str(tmp_path / 'new'), None)
    # Checkpoints that the hook's out_dir keeps elsewhere are of the work directory all the same.
    Path(other).parent.mkdir()
    Path(other).touch()
    (there / 'last_checkpoint').write_text(other)
    assert work_dir(tmp_path, str(there), resume=other) == (str(there), None)


NEW_STYLE = """
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.datasets import PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import LinearClsHead, VisionTransformer
from torch.optim import AdamW

from gleam_mm.minivtab import MiniVTAB
from gleam_mm.models import PETLClassifier
from gleam_mm.petl import LoRA

model = dict(
    type=PETLClassifier,
    backbone=dict(
        type=VisionTransformer,
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=16,
    ),
    head=dict(type=LinearClsHead, in_channels=16, num_classes=None),
    petl=dict(type=LoRA, rank=2),
    allow_random_backbone=True,
)
data_preprocessor = dict(num_classes=None, mean=[0], std=[255])
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=MiniVTAB, split='train800', indices=32, pipeline=[dict(type=PackInputs)]),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=MiniVTAB, split='val200', indices=16, pipeline=[dict(type=PackInputs)]),
)
val_cfg = dict()
val_evaluator = dict(type=Accuracy, topk=(1,))
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
param_scheduler = [dict(type=LinearLR, end=1)]
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1, save_best='auto'))
"""


@pytest.mark.parametrize(('cores', 'workers'), [(2, 2), (64, 4)])
def test_a_worker_of_a_data_loader_has_a_core(cores, workers, monkeypatch):
    monkeypatch.setattr(launch, 'cores', lambda: cores)
    cfg = Config(dict(train_dataloader=dict(num_workers=4), val_dataloader=dict(batch_size=1)))
    launch.set_dataloader_defaults(cfg)
    assert cfg.train_dataloader.num_workers == workers
    assert 'num_workers' not in cfg.val_dataloader


def test_a_new_style_config_trains_with_what_replaces_mmengines_classes(tmp_path, monkeypatch):
    """It names MMEngine's classes, not ours: with ``--amp`` on a CPU, and MMEngine's own hook."""
    monkeypatch.setattr('gleam_mm.engine.amp.get_device', lambda: 'cpu')
    (tmp_path / 'new_style.py').write_text(NEW_STYLE)
    cfg = recipes.load(tmp_path / 'new_style.py')
    launch.set_work_dir(cfg, str(tmp_path / 'run'))
    launch.use_amp(cfg)
    launch.set_dataloader_defaults(cfg)
    checks.check_schedule(cfg)
    runner = build_runner(cfg, 'none')
    runner.train()
    built = (runner.optim_wrapper, runner.train_loop, *runner.param_schedulers)
    assert [type(part).__name__ for part in built] == [
        *('CPUAmpOptimWrapper', 'EpochTrainLoop', 'WarmupLR')
    ]
    assert (tmp_path / 'run' / 'adapter.safetensors').is_file()
    assert Config.fromfile(tmp_path / 'run' / 'new_style.py').train_cfg.max_epochs == 1
    (tmp_path / 'text.py').write_text("_base_ = './new_style.py'\n")
    with pytest.raises(recipes.RecipeError, match='write it in the new style too'):
        recipes.load(tmp_path / 'text.py')


def test_a_folder_that_another_process_trains_into_is_refused(make_runner, tmp_path):
    """It is free again when that process has ended, however it did."""
    folder = tmp_path / 'run'
    folder.mkdir()
    told, tells = os.pipe()
    other = os.fork()
    if other == 0:
        os._exit(_claim_until_killed(folder, tells))
    assert os.read(told, 1) == b'1'
    with pytest.raises(FileExistsError, match=r'run: another process is training into this folder'):
        make_runner()
    assert not list(folder.glob('*/*'))
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    make_runner()


def _claim_until_killed(folder, tells):
    claimed = claim(folder / '.lock')
    os.write(tells, b'1' if claimed else b'0')
    signal.pause()
