"""Checkpoints: what is on disk at every moment, and what resuming makes of it."""

import itertools
import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import nn

import gleam_mm
from gleam_mm import fileio
from gleam_mm.checkpoint import read_adapter, read_state_dict
from gleam_mm.engine import PETLRunner, find_resumable
from gleam_mm.errors import UserError
from gleam_mm.registry import METRICS

RUNS = itertools.count()  # MMEngine keeps one message hub an experiment name


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the stack may catch it."""


class Pictures(BaseDataset):
    """Random images of two classes."""

    METAINFO = {'classes': ('dark', 'bright')}

    def load_data_list(self):
        generator = torch.Generator().manual_seed(1)
        return [
            {'inputs': torch.rand(3, 32, 32, generator=generator) + i % 2, 'gt_label': i % 2}
            for i in range(8)
        ]


def to_sample(data):
    sample = DataSample().set_gt_label(data['gt_label'])
    return {'inputs': data['inputs'] + 0.1 * torch.randn(3, 32, 32), 'data_samples': sample}


class Scripted(BaseMetric):
    """An accuracy that goes the way a test wants it to, one value a validation."""

    script: list[float] = []
    default_prefix = 'accuracy'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'top1': self.script[_epoch() - 1]}


def _epoch():
    return MessageHub.get_current_instance().get_info('iter_of_test') // 4


METRICS.register_module(name='ScriptedAccuracy', module=Scripted)


class Plain(BaseModel):
    """A model that is no PETLClassifier."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.linear(torch.stack(list(inputs)).mean((-1, -2)))
        return {'loss': scores.square().mean()} if mode == 'loss' else [scores]


class CountIterations(Hook):
    """Tells the scripted metric which epoch it is."""

    def before_val_epoch(self, runner):
        runner.message_hub.update_info('iter_of_test', runner.iter)


@pytest.fixture
def make_runner(tmp_path, make_classifier, monkeypatch):
    """Builds a runner that trains on 8 images for 3 epochs of 4 iterations."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # it asks compilers; slow

    def make(
        model=None,
        script=(1.0, 2.0, 3.0),
        hooks=(),
        schedule=True,
        work_dir=None,
        test=False,
        **cfg,
    ):
        Scripted.script = list(script)
        loader = dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=Pictures(pipeline=[to_sample]),
            collate_fn=dict(type='default_collate'),
        )
        evaluation = dict(
            loader, sampler=dict(type='DefaultSampler', shuffle=False), dataset=loader['dataset']
        )
        checkpoint = dict(
            type='AdapterCheckpointHook', interval=1, max_keep_ckpts=1, save_best='auto'
        )
        checkpoint.update(cfg.pop('checkpoint', {}))
        validation = dict(
            val_dataloader=evaluation, val_cfg={}, val_evaluator=dict(type='ScriptedAccuracy')
        )
        if not script:
            validation = {}
        if test:
            validation |= dict(
                test_dataloader=evaluation, test_cfg={}, test_evaluator=dict(type='Accuracy')
            )
        config = dict(
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2)),
            param_scheduler=dict(type='CosineAnnealingLR', convert_to_iter_based=True)
            if schedule
            else None,
            default_hooks=dict(checkpoint=checkpoint, epoch_seed=dict(type='EpochSeedHook')),
            custom_hooks=[CountIterations(), *hooks],
            randomness=dict(seed=0),
            default_scope='gleam_mm',
            log_level='ERROR',
            experiment_name=f'run {next(RUNS)}',
        )
        return PETLRunner(
            model=make_classifier(num_classes=2) if model is None else model,
            work_dir=str(work_dir or tmp_path / 'run'),
            **{**config, **validation, **cfg},
        )

    return make


class KillAt(Hook):
    """Raises where a kill would strike."""

    priority = 'NORMAL'

    def __init__(self, point, epoch):
        self.point, self.epoch = point, epoch

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._at('mid-epoch', runner, batch_idx == 2)

    def before_val_epoch(self, runner):
        self._at('validation', runner, True, runner.epoch)

    def _at(self, point, runner, here, epoch=None):
        if point == self.point and here and (epoch or runner.epoch + 1) == self.epoch:
            raise Killed


def files(folder):
    return sorted(
        path.name for path in Path(folder).glob('*') if path.is_file() and path.suffix != '.py'
    )


def final_state(runner):
    return {
        'weights': read_state_dict(Path(runner.work_dir) / 'epoch_3.pth'),
        'best': runner.message_hub.get_info('best_score'),
        'files': files(runner.work_dir),
        'losses': runner.message_hub.get_scalar('train/loss').data[0].tolist(),
        'accuracies': runner.message_hub.get_scalar('val/accuracy/top1').data[0].tolist(),
    }


def assert_same(a, b):
    assert a['weights'].keys() == b['weights'].keys()
    for key in a['weights']:
        assert torch.equal(a['weights'][key], b['weights'][key]), key
    for key in ('best', 'files', 'losses', 'accuracies'):
        assert a[key] == b[key], key


# Keeping


def test_one_checkpoint_and_the_best_are_kept(make_runner, tmp_path):
    make_runner(script=(1.0, 5.0, 2.0)).train()
    assert files(tmp_path / 'run') == [
        'adapter.safetensors',
        'best_accuracy_top1_epoch_2.pth',
        'epoch_3.pth',
        'last_checkpoint',
    ]
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith('epoch_3.pth')


def test_two_checkpoints_are_kept(make_runner, tmp_path):
    make_runner(checkpoint=dict(max_keep_ckpts=2, save_best=None)).train()
    assert files(tmp_path / 'run')[1:3] == ['epoch_2.pth', 'epoch_3.pth']


def test_all_checkpoints_are_kept_by_default(make_runner, tmp_path):
    make_runner(checkpoint=dict(max_keep_ckpts=-1, save_best=None)).train()
    assert {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'} <= set(files(tmp_path / 'run'))


def test_best_of_several_metrics(make_runner, tmp_path):
    class Two(Scripted):
        def compute_metrics(self, results):
            top1 = self.script[_epoch() - 1]
            return {'top1': top1, 'top5': -top1}

    METRICS.register_module(name='TwoAccuracies', module=Two, force=True)
    make_runner(
        script=(1.0, 5.0, 2.0),
        val_evaluator=dict(type='TwoAccuracies'),
        checkpoint=dict(save_best=['accuracy/top1', 'accuracy/top5']),
    ).train()
    best = [name for name in files(tmp_path / 'run') if name.startswith('best')]
    assert best == ['best_accuracy_top1_epoch_2.pth', 'best_accuracy_top5_epoch_1.pth']


def test_there_is_a_complete_checkpoint_before_anything_is_removed(make_runner, monkeypatch):
    runner = make_runner(script=(1.0, 2.0, 3.0))
    remove = os.remove

    def watch(path):
        folder = Path(runner.work_dir)
        last = Path((folder / 'last_checkpoint').read_text())
        assert Path(path) != last and find_resumable(folder) == last
        best = [p for p in folder.glob('best_*') if p != Path(path)]
        assert not Path(path).name.startswith('best_') or best
        remove(path)

    monkeypatch.setattr(os, 'remove', watch)
    runner.train()


def test_no_warning_where_there_is_no_scheduler(make_runner, caplog):
    runner = make_runner(schedule=False)
    runner.logger.propagate = True
    runner.train()
    assert 'save_param_scheduler' not in caplog.text


# Kills


def resume(make_runner, **options):
    path = find_resumable(Path(make_runner(**options).work_dir))
    if path is None:
        return make_runner(**options)
    return make_runner(resume=True, load_from=str(path), **options)


@pytest.fixture(scope='module')
def known():
    return {}


@pytest.fixture
def uninterrupted(make_runner, known, tmp_path):
    """Trains without a kill, once for each script."""

    def train(script):
        if script not in known:
            runner = make_runner(script=script, work_dir=tmp_path / 'whole')
            runner.train()
            known[script] = final_state(runner)
        return known[script]

    return train


@pytest.mark.parametrize('point', ['mid-epoch', 'validation'])
@pytest.mark.parametrize('epoch', [1, 2, 3])
@pytest.mark.parametrize('script', [(1.0, 2.0, 3.0), (1.0, 3.0, 2.0)])
def test_killed_and_resumed_equals_uninterrupted(point, epoch, script, make_runner, uninterrupted):
    with pytest.raises(Killed):
        make_runner(script=script, hooks=[KillAt(point, epoch)]).train()
    resumed = resume(make_runner, script=script)
    resumed.train()
    assert_same(final_state(resumed), uninterrupted(script))


# An epoch with a new best writes: the checkpoint, last_checkpoint, the best one, the checkpoint
# again (now it names the best one), last_checkpoint, the adapter.
SECOND_EPOCH = range(7, 13)


class KillWrites:
    """Kills in the middle of the n-th write, or right after it, before anything is removed."""

    def __init__(self, monkeypatch, number, after):
        self.number, self.after, self.count = number, after, 0
        self.original = fileio.write_bytes
        for module in ('fileio', 'checkpoint.adapter', 'engine.checkpoint_hook'):
            monkeypatch.setattr(f'gleam_mm.{module}.write_bytes', self)

    def __call__(self, path, data):
        self.count += 1
        if self.count == self.number and not self.after:
            half = Path(path).with_name(f'.writing-1-{Path(path).name}')
            half.write_bytes(data[: len(data) // 2])
            raise Killed
        self.original(path, data)
        if self.count == self.number:
            raise Killed


@pytest.mark.parametrize('after', [False, True])
@pytest.mark.parametrize('number', [1, 2, *SECOND_EPOCH])
def test_killed_in_any_write_and_resumed_equals_uninterrupted(
    number, after, make_runner, monkeypatch, uninterrupted
):
    script = (1.0, 3.0, 2.0)
    runner = make_runner(script=script)
    with monkeypatch.context() as patched:
        KillWrites(patched, number, after)
        with pytest.raises(Killed):
            runner.train()
    if number in SECOND_EPOCH:
        assert find_resumable(runner.work_dir) is not None
        assert list(Path(runner.work_dir).glob('best_*'))
    resumed = resume(make_runner, script=script)
    resumed.train()
    assert_same(final_state(resumed), uninterrupted(script))


def test_ema_is_resumed_exactly(make_runner, tmp_path):
    def ema():
        return [dict(type='EMAHook', momentum=0.1)]

    whole = make_runner(hooks=ema(), work_dir=tmp_path / 'whole')
    whole.train()
    with pytest.raises(Killed):
        make_runner(hooks=[*ema(), KillAt('mid-epoch', 3)]).train()
    resumed = resume(make_runner, hooks=ema())
    resumed.train()
    assert_same(final_state(resumed), final_state(whole))


# Finding what to resume


@pytest.fixture
def finished(make_runner, tmp_path):
    make_runner(checkpoint=dict(max_keep_ckpts=-1)).train()
    return tmp_path / 'run'


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_nothing_to_resume(tmp_path):
    assert find_resumable(tmp_path) is None
    assert find_resumable(tmp_path / 'missing') is None


def test_newest_loadable_checkpoint_is_found(finished):
    assert find_resumable(finished) == finished / 'epoch_3.pth'
    cut(finished / 'epoch_3.pth')
    with pytest.warns(UserWarning, match=r'cannot resume from .*epoch_3\.pth: damaged'):
        assert find_resumable(finished) == finished / 'epoch_2.pth'
    (finished / 'epoch_3.pth').unlink()
    (finished / 'last_checkpoint').unlink()
    (finished / 'epoch_2.pth').rename(finished / 'epoch_10.pth')
    assert find_resumable(finished) == finished / 'epoch_10.pth'


def test_best_checkpoints_and_bare_weights_are_not_resumed(finished):
    for path in finished.glob('epoch_*.pth'):
        path.unlink()
    torch.save({'state_dict': {'a': torch.ones(1)}}, finished / 'weights.pth')
    assert list(finished.glob('best_*'))
    assert find_resumable(finished) is None


def test_adapter_cannot_be_resumed(finished, make_runner):
    path = finished / 'adapter.safetensors'
    with pytest.raises(UserError, match=r'adapter\.safetensors: holds weights, but no state'):
        make_runner(resume=True, load_from=str(path)).train()


def test_moved_work_directory_is_resumed(finished, tmp_path):
    moved = finished.rename(tmp_path / 'moved')
    assert find_resumable(moved) == moved / 'epoch_3.pth'


def test_crafted_checkpoint_is_passed_over(finished, tmp_path):
    class Crafted:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'ran',)

    torch.save({'meta': Crafted()}, finished / 'epoch_3.pth')
    with pytest.warns(UserWarning, match='refused'):
        assert find_resumable(finished) == finished / 'epoch_2.pth'
    assert not (tmp_path / 'ran').exists()


def test_unfinished_files_are_cleared_at_the_start(make_runner, tmp_path):
    stale = tmp_path / 'run' / '.writing-7-epoch_9.pth'
    stale.parent.mkdir()
    stale.write_bytes(b'PK half')
    assert find_resumable(stale.parent) is None
    make_runner().train()
    assert not stale.exists()


# The adapter file


def test_adapter_holds_what_was_trained_and_says_what_it_is(make_runner):
    runner = make_runner(test=True)
    runner.train()
    tensors, metadata = read_adapter(Path(runner.work_dir) / 'adapter.safetensors')
    state = runner.model.state_dict()
    assert state.keys() - tensors.keys() == {'_extra_state'}
    assert all(torch.equal(tensors[key], state[key]) for key in tensors)
    assert not any(key.startswith('backbone.') for key in tensors)
    assert metadata['backbone_fingerprint'] == runner.model.backbone_fingerprint()
    assert metadata['classes'] == ['dark', 'bright']
    assert (metadata['epoch'], metadata['iter']) == (3, 12)
    assert metadata['metrics'] == {'val': {'accuracy/top1': 3.0}}
    assert metadata['versions']['gleam_mm'] == gleam_mm.__version__
    assert metadata['versions'].keys() == {'gleam_mm', 'torch', 'mmengine', 'mmpretrain'}
    tested = runner.test()
    metrics = read_adapter(Path(runner.work_dir) / 'adapter.safetensors')[1]['metrics']
    assert metrics == {'val': {'accuracy/top1': 3.0}, 'test': tested}


def test_adapter_without_validation(make_runner):
    runner = make_runner(script=(), checkpoint=dict(save_best=None))
    runner.train()
    metadata = read_adapter(Path(runner.work_dir) / 'adapter.safetensors')[1]
    assert metadata['metrics'] == {} and metadata['epoch'] == 3


def test_adapter_names_method_and_backbone_of_the_config(make_runner, make_classifier):
    config = dict(
        type='PETLClassifier',
        backbone=dict(
            type='VisionTransformer',
            arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128),
            img_size=32,
            patch_size=8,
        ),
        head=dict(type='LinearClsHead', in_channels=32, num_classes=2),
        petl=dict(type='LoRA', rank=2),
    )
    runner = make_runner(model=config, cfg=dict(model=config))
    runner.train()
    metadata = read_adapter(Path(runner.work_dir) / 'adapter.safetensors')[1]
    assert metadata['method'] == {'type': 'LoRA', 'rank': 2}
    assert metadata['backbone']['arch']['embed_dims'] == 32
    json.dumps(metadata)


def test_adapter_of_averaged_weights(make_runner):
    runner = make_runner(hooks=[dict(type='EMAHook', momentum=0.1)])
    runner.train()
    tensors, _ = read_adapter(Path(runner.work_dir) / 'adapter.safetensors')
    saved = read_state_dict(Path(runner.work_dir) / 'epoch_3.pth')
    assert all(torch.equal(tensors[key], saved[key]) for key in tensors)
    state = runner.model.state_dict()
    assert any(not torch.equal(tensors[key], state[key]) for key in tensors)


def test_adapter_loads_in_place_of_a_checkpoint(make_runner, tmp_path):
    trained = make_runner()
    trained.train()
    adapter = Path(trained.work_dir) / 'adapter.safetensors'
    runner = make_runner(load_from=str(adapter), test=True, work_dir=tmp_path / 'test')
    runner.test()
    state = trained.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in runner.model.state_dict().items())


@pytest.mark.parametrize('name', ['adapter.safetensors', 'epoch_3.pth'])
def test_another_backbone_is_refused(name, make_runner, make_classifier, tmp_path):
    trained = make_runner()
    trained.train()
    path = Path(trained.work_dir) / name
    model = make_classifier(num_classes=2, seed=5)
    other = make_runner(model=model, load_from=str(path), test=True, work_dir=tmp_path / 'test')
    with pytest.raises(UserError) as caught:
        other.test()
    for part in (
        str(path),
        trained.model.backbone_fingerprint(),
        other.model.backbone_fingerprint(),
    ):
        assert part in str(caught.value)


def test_other_models_are_saved_without_an_adapter(make_runner, tmp_path):
    make_runner(model=Plain()).train()
    assert 'epoch_3.pth' in files(tmp_path / 'run')
    assert 'adapter.safetensors' not in files(tmp_path / 'run')


def test_validating_alone_saves_nothing(make_runner, tmp_path):
    make_runner().val()
    assert files(tmp_path / 'run') == []


# Loops over iterations


def test_loops_over_iterations_are_saved(make_runner, tmp_path):
    def options(work_dir):
        return dict(
            work_dir=work_dir,
            train_cfg=dict(by_epoch=False, max_iters=12, val_interval=4),
            checkpoint=dict(by_epoch=False, interval=4),
            param_scheduler=None,
        )

    make_runner(**options(tmp_path / 'run')).train()
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith('iter_12.pth')
    assert 'best_accuracy_top1_iter_12.pth' in files(tmp_path / 'run')
    metadata = read_adapter(tmp_path / 'run/adapter.safetensors')[1]
    assert metadata['iter'] == 12 and metadata['metrics'] == {'val': {'accuracy/top1': 3.0}}
