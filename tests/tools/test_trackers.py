"""tools/train.py --track: TensorBoard as it is, Weights & Biases and MLflow by stand-ins too."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from experiments import begin_anew
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gleam_mm.engine.trackers import TRACKERS, WandbTracker
from gleam_mm_cli import train

TWO = ('--cfg-options', 'train_cfg.max_epochs=2')
STEPS = list(range(1, 13))  # of three epochs


class StandIn(ModuleType):
    """A module whose functions write down how they were called."""

    def __init__(self, name, *functions, **others):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # so that it counts as installed
        self.calls = []
        for function in (*functions, *others):
            setattr(self, function, self._recording(function, others.get(function)))

    def _recording(self, name, function):
        def called(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return function(*args, **kwargs) if function else None

        return called

    def of(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture(scope='module')
def wandb():
    module = StandIn('wandb', 'init', 'log', 'finish')
    module.config, module.run = StandIn('config', 'update'), StandIn('run', 'log_code')
    return module


@pytest.fixture(scope='module')
def mlflow():
    def start(run_id=None, run_name=None):
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f'a new one, {run_name}'))

    return StandIn(
        'mlflow',
        *('set_tracking_uri', 'get_experiment_by_name', 'create_experiment', 'set_experiment'),
        *('log_params', 'log_text', 'log_artifact', 'log_metrics', 'end_run'),
        start_run=start,
        get_tracking_uri=lambda: 'sqlite:///mlflow.db',
    )


@pytest.fixture(scope='module')
def trained(config, wandb, mlflow, tmp_path_factory):
    """The folder of a training of two epochs that was resumed for a third one."""
    folder = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv('WANDB_PROJECT', 'mine')
        for module in (wandb, mlflow):
            patch.setitem(sys.modules, module.__name__, module)
        for flags in (TWO, ('--resume',)):
            begin_anew(patch)
            patch.setattr(sys, 'argv', ['train.py', str(config), '--track', *TRACKERS, *flags])
            train.main(train.parse_args())
    return folder


def test_the_flag_names_every_tracker():
    assert {*train.TRACKERS} == TRACKERS.keys()


@pytest.mark.slow
def test_tensorboard_goes_on_with_a_resumed_training(trained):
    events = EventAccumulator(str(trained / 'work_dirs' / 'tiny' / 'tensorboard')).Reload()
    seen = {tag: [e.step for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}
    assert seen['loss'] == STEPS
    assert seen['accuracy/top1'] == [1, 2, 3]  # on validation, by epochs
    assert seen['test/accuracy/top1'] == [8, 12]


def test_wandb_goes_on_with_a_resumed_training(trained, wandb):
    opened = [kwargs for _, kwargs in wandb.of('init')]
    assert len(opened) == 4  # a training and its test, twice
    assert len({kwargs['id'] for kwargs in opened}) == 1
    assert {kwargs['resume'] for kwargs in opened} == {'allow'}
    assert {(kwargs['project'], kwargs['name']) for kwargs in opened} == {('mine', 'tiny')}
    assert len(wandb.of('finish')) == len(opened)
    assert len(wandb.config.of('update')) == 1  # the config is that of the start
    logged = [args[0] for args, _ in wandb.of('log')]
    assert sum('loss' in scalars for scalars in logged) == 12
    assert sum('test/accuracy/top1' in scalars for scalars in logged) == 2


def test_another_training_is_another_run(trained, wandb, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    before = wandb.of('init')[0][1]['id']
    for again in (tmp_path, trained / 'work_dirs' / 'tiny'):  # which is not resumed
        tracker = WandbTracker(str(again / 'time' / 'vis_data'))
        tracker.add_config(Config())
        tracker.close()
        assert wandb.of('init')[-1][1]['id'] != before


def test_a_test_alone_leaves_the_run_of_the_training(trained, wandb, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    folder = trained / 'work_dirs' / 'tiny'
    first, second = WandbTracker(str(folder / 'a' / 'b')), WandbTracker(str(folder / 'a' / 'b'))
    first.add_config(Config(dict(train_dataloader={})))
    first.close()
    second.add_config(Config(dict(test_dataloader={}, train_dataloader=None)))
    second.close()
    training, test = (kwargs['id'] for _, kwargs in wandb.of('init')[-2:])
    assert training != test
    assert json.loads((folder / 'tracked.json').read_text())['WandbTracker'] == training


@pytest.mark.parametrize('text', ['{', '[]', '{"WandbTracker": {"id": 1}}'])
def test_a_damaged_list_of_runs_is_named(tmp_path, text):
    (tmp_path / 'tracked.json').write_text(text)
    tracker = WandbTracker(str(tmp_path / 'time' / 'vis_data'))
    with pytest.raises(ValueError, match=r'tracked\.json: damaged: remove it'):
        tracker.add_config(Config(dict(resume=True)))


def test_mlflow_goes_on_with_a_resumed_training(trained, mlflow):
    first, *others = [kwargs for _, kwargs in mlflow.of('start_run')]
    assert first == {'run_name': 'tiny'}
    assert others == [{'run_id': 'a new one, tiny'}] * 3
    assert len(mlflow.of('end_run')) == 4
    assert len(mlflow.of('log_params')) == 1  # MLflow refuses others of a run
    assert mlflow.of('set_tracking_uri')[0][0] == ('sqlite:///mlflow.db',)
    logged = [args for args, _ in mlflow.of('log_metrics')]
    assert [step for scalars, step in logged if 'loss' in scalars] == STEPS
    assert [step for scalars, step in logged if 'test/accuracy/top1' in scalars] == [8, 12]


@pytest.mark.slow
def test_a_real_mlflow_keeps_one_run(call, config, tmp_path):
    mlflow = pytest.importorskip('mlflow', reason='pip install mlflow-skinny')
    assert call('train.py', config, '--track', 'mlflow', *TWO).code == 0
    assert call('train.py', config, '--track', 'mlflow', '--resume').code == 0
    (run,) = mlflow.search_runs(experiment_names=['gleam-mm'], output_format='list')
    assert (run.info.run_name, run.info.status) == ('tiny', 'FINISHED')
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, 'loss')
    assert [metric.step for metric in history] == STEPS
    assert run.data.metrics['test/accuracy/top1'] >= 0


@pytest.mark.slow
def test_a_real_wandb_offline_keeps_one_run(call, config, tmp_path, monkeypatch):
    pytest.importorskip('wandb', reason='pip install wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    assert call('train.py', config, '--track', 'wandb', *TWO).code == 0
    assert call('train.py', config, '--track', 'wandb', '--resume').code == 0
    folder = tmp_path / 'work_dirs' / 'tiny'
    run = json.loads((folder / 'tracked.json').read_text())['WandbTracker']
    written = list((folder / 'wandb').glob('offline-run-*'))
    assert written
    assert all(path.name.endswith(run) for path in written)


@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_a_package_that_is_missing(call, config, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    done = call('train.py', config, '--track', name)
    assert done.code == 2
    assert done.err.count('\n') == 1
    assert f'--track {name}: the package {name} is not installed: pip install {name}' in done.err


def test_a_tracker_that_there_is_not(call, config):
    done = call('train.py', config, '--track', 'neptune')
    assert done.code == 2
    assert 'tensorboard' in done.err
