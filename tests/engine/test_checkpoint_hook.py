"""Checkpoints: what is kept and when, and the adapter file beside them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.runner import Runner
from runs import Plain, Scripted

import gleam_mm
from gleam_mm.checkpoint import read_adapter, read_state_dict
from gleam_mm.config.recipes import config_root
from gleam_mm.engine import AdapterCheckpointHook, ResumedEarlyStoppingHook, find_resumable
from gleam_mm.engine.checkpoint_hook import DEFAULT
from gleam_mm.engine.checks import check_best
from gleam_mm.errors import UserError
from gleam_mm.registry import HOOKS, METRICS


def files(folder):
    """What a training writes beside its config, and the lock that says whose the folder is."""
    return sorted(
        path.name for path in Path(folder).glob('[!.]*') if path.is_file() and path.suffix != '.py'
    )


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


def test_the_runner_and_the_hook_of_mmengine_write_the_adapter_as_well(make_runner, tmp_path):
    """As MMPretrain's tools/train.py has them, with a config that names neither."""
    make_runner(kind=Runner, default_hooks=dict(checkpoint=dict(type='CheckpointHook'))).train()
    assert 'adapter.safetensors' in files(tmp_path / 'run')
    assert read_adapter(tmp_path / 'run/adapter.safetensors')[1]['epoch'] == 3


def test_two_checkpoints_are_kept(make_runner, tmp_path):
    make_runner(checkpoint=dict(max_keep_ckpts=2, save_best=None)).train()
    assert files(tmp_path / 'run')[1:3] == ['epoch_2.pth', 'epoch_3.pth']


def test_all_checkpoints_are_kept_by_default(make_runner, tmp_path):
    make_runner(checkpoint=dict(max_keep_ckpts=-1, save_best=None)).train()
    assert {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'} <= set(files(tmp_path / 'run'))


def test_best_of_several_metrics(make_runner, tmp_path):
    class Two(Scripted):
        def compute_metrics(self, results):
            return {'top1': self.now(), 'top5': -self.now()}

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


@pytest.mark.parametrize(
    ('metric', 'best'),
    [
        ('accuracy/top1', 2),
        ('single-label/f1-score', 2),
        ('val_loss', 1),
        ('regression/mae', 1),
        ('regression/mae/stop', 1),  # 'top' is the best of an accuracy
        ('regression/pearson/distance', 2),
        ('calibration/ece', 1),
    ],
)
def test_whether_less_is_better_is_told_by_the_name(metric, best, make_runner, tmp_path):
    measure(metric, lambda now: now)
    make_runner(script=(1.0, 5.0, 2.0), val_evaluator=dict(type='Measured')).train()
    name = metric.replace('/', '_')
    assert f'best_{name}_epoch_{best}.pth' in files(tmp_path / 'run')


def test_a_metric_of_which_nothing_is_known_counts_as_an_accuracy(make_runner, tmp_path, capsys):
    measure('wonder', lambda now: now)
    runner = make_runner(
        script=(1.0, 5.0, 2.0), val_evaluator=dict(type='Measured'), log_level='WARNING'
    )
    runner.train()
    assert 'best_wonder_epoch_2.pth' in files(tmp_path / 'run')
    assert 'default_hooks.checkpoint.rule' in capsys.readouterr().out


def test_of_several_metrics_each_has_its_own_rule():
    metrics = ['regression/pearson', 'calibration/ece', 'wonder', 'accuracy/top1']
    hook = AdapterCheckpointHook(save_best=metrics)
    assert hook.rules == ['greater', 'less', 'greater', 'greater']
    assert hook.key_indicators == metrics
    assert AdapterCheckpointHook(save_best=metrics[:2], rule='less').rules == ['less', 'less']


@pytest.mark.parametrize('name, rule', [('mae/stop', 'less'), ('pearson/distance', 'greater')])
def test_early_stopping_goes_by_the_same_rules(name, rule):
    assert ResumedEarlyStoppingHook(monitor=f'regression/{name}').rule == rule


def measure(name, value):
    class Measured(Scripted):
        default_prefix = None

        def compute_metrics(self, results):
            return {name: value(self.now())}

    METRICS.register_module(name='Measured', module=Measured, force=True)


@pytest.mark.parametrize(
    ('value', 'written'),
    [
        (torch.tensor([[3, 1], [0, 4]]), {'table': [[3, 1], [0, 4]]}),
        (np.array([0.5, 0.25]), {'table': [0.5, 0.25]}),
        ([torch.tensor(1.0), None], {'table': [1.0, None]}),
        ({'ant': np.float32(0.5), 'bee': [1, 2]}, {'table/ant': 0.5, 'table/bee': [1, 2]}),
        ('a text', {}),
        (['a text'], {}),
    ],
)
def test_results_that_are_no_numbers_are_written_and_compared_with_nothing(
    value, written, make_runner, tmp_path
):
    measure('table', lambda now: value)
    evaluator = [dict(type='Measured'), dict(type='ScriptedAccuracy')]
    make_runner(val_evaluator=evaluator).train()
    metadata = read_adapter(tmp_path / 'run/adapter.safetensors')[1]
    assert metadata['metrics']['val'] == {**written, 'accuracy/top1': 3.0}
    assert 'best_accuracy_top1_epoch_3.pth' in files(tmp_path / 'run')


def test_confusion_matrix_of_mmpretrain(make_runner, tmp_path):
    make_runner(val_evaluator=[dict(type='ConfusionMatrix'), dict(type='Accuracy')]).train()
    metrics = read_adapter(tmp_path / 'run/adapter.safetensors')[1]['metrics']['val']
    assert np.sum(metrics['confusion_matrix/result']) == 8


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
    assert (metadata['epoch'], metadata['iter']) == (3, 6)
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


def test_what_is_saved_is_what_is_tested_with_averaged_weights(make_runner, tmp_path):
    trained = make_runner(hooks=[dict(type='EMAHook', momentum=0.01)], test=True)
    trained.train()
    seen = watch_outputs(trained)
    trained.test()
    adapter = Path(trained.work_dir) / 'adapter.safetensors'
    loaded = make_runner(load_from=str(adapter), test=True, work_dir=tmp_path / 'test')
    again = watch_outputs(loaded)
    loaded.test()
    assert len(seen) == len(again) > 0
    assert all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))


def watch_outputs(runner):
    """The head's weights in each forward pass."""
    seen = []
    head = runner.model.head
    head.register_forward_pre_hook(lambda *_: seen.append(head.fc.weight.detach().clone()))
    return seen


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
    make_runner(
        train_cfg=dict(by_epoch=False, max_iters=6, val_interval=2),
        checkpoint=dict(by_epoch=False, interval=2),
        param_scheduler=None,
    ).train()
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith('iter_6.pth')
    assert 'best_accuracy_top1_iter_6.pth' in files(tmp_path / 'run')
    metadata = read_adapter(tmp_path / 'run/adapter.safetensors')[1]
    assert metadata['iter'] == 6 and metadata['metrics'] == {'val': {'accuracy/top1': 3.0}}


def test_the_same_training_writes_the_same_bytes(make_runner, tmp_path):
    for name in 'ab':
        make_runner(work_dir=tmp_path / name).train()
    ours, theirs = (tmp_path / name / 'adapter.safetensors' for name in 'ab')
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize('own', [False, True])
def test_mmengines_hooks_become_ours(own, make_runner, tmp_path):
    """As in a config for MMPretrain whose model is a PETLClassifier."""
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1)) if own else None
    make_runner(default_hooks=hooks, script=()).train()
    assert (tmp_path / 'run' / 'adapter.safetensors').is_file()


def test_none_does_without_a_default_hook(make_runner):
    off = dict.fromkeys(('checkpoint', 'classes', 'logger', 'visualization'))
    runner = make_runner(default_hooks=off)
    kinds = {type(hook).__name__ for hook in runner.hooks}
    assert not kinds & {'AdapterCheckpointHook', 'CheckClassesHook', 'LoggerHook'}
    assert {'EpochSeedHook', 'RuntimeInfoHook', 'ConsoleHook'} <= kinds


def test_a_config_without_hooks_saves_as_one_of_our_default_runtime(make_runner, tmp_path):
    runtime = Config.fromfile(config_root() / '_base_' / 'default_runtime.py')
    ours = runtime.default_hooks.checkpoint
    assert {**ours, 'type': HOOKS.get(ours.type)} == DEFAULT
    make_runner(default_hooks=None, script=(1.0, 3.0, 2.0)).train()
    assert {'best_accuracy_top1_epoch_2.pth', 'epoch_3.pth'} <= {*files(tmp_path / 'run')}
    check_best(Config(dict(val_dataloader={})))
    with pytest.raises(ValueError, match='keeps no best checkpoint'):
        check_best(Config(dict(val_dataloader={}, default_hooks=dict(checkpoint=None))))


def test_the_best_averaged_weights(make_runner, tmp_path):
    runner = make_runner(script=(1.0, 3.0, 2.0), hooks=[dict(type='EMAHook', momentum=0.1)])
    runner.train()
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, AdapterCheckpointHook))
    best = read_state_dict(hook.load_best(runner))
    tensors, metadata = read_adapter(tmp_path / 'run' / 'adapter.safetensors')
    assert (metadata['epoch'], metadata['metrics']) == (2, {'val': {'accuracy/top1': 3.0}})
    averaged = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
    for name, tensor in tensors.items():
        assert torch.equal(tensor, best[name])
        assert torch.equal(averaged.state_dict()[name], best[name])


def test_the_adapter_is_that_of_the_weights_that_a_finished_training_is_resumed_with(
    make_runner, tmp_path
):
    """A run before has left that of the best weights."""
    path = tmp_path / 'run' / 'adapter.safetensors'
    first = make_runner(script=(1.0, 3.0, 2.0), test=True)
    first.train()
    final = path.read_bytes()
    (hook,) = (hook for hook in first.hooks if isinstance(hook, AdapterCheckpointHook))
    hook.load_best(first)
    best = first.test()
    metadata = read_adapter(path)[1]
    assert (metadata['epoch'], metadata['metrics']['test']) == (2, best)
    again = make_runner(
        script=(1.0, 3.0, 2.0), test=True, resume=True, load_from=str(tmp_path / 'run/epoch_3.pth')
    )
    again.train()
    assert path.read_bytes() == final
    tested = again.test()
    metadata = read_adapter(path)[1]
    assert (metadata['epoch'], metadata['iter']) == (3, 6)
    assert metadata['metrics'] == {'val': {'accuracy/top1': 2.0}, 'test': tested}


def test_the_adapter_is_that_of_the_end_where_no_checkpoint_is(make_runner, tmp_path):
    hooks = [dict(type='EMAHook', momentum=0.1)]
    saves = dict(interval=2, save_last=False, save_best=None)
    runner = make_runner(checkpoint=saves, hooks=hooks)
    runner.train()
    tensors, metadata = read_adapter(tmp_path / 'run' / 'adapter.safetensors')
    assert (metadata['epoch'], metadata['metrics']) == (3, {'val': {'accuracy/top1': 3.0}})
    averaged = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
    state = averaged.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in tensors.items())
