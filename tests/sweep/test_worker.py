"""Trainings of a sweep, in this process."""

import io
import json
import os
import signal
import sys
import time
import weakref
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image
from sweep_place import OPTIONS

from gleam_mm.config import recipes
from gleam_mm.datasets import VTAB1K
from gleam_mm.engine import PETLRunner, fill_num_classes
from gleam_mm.errors import UserError
from gleam_mm.output import escape
from gleam_mm.registry import HOOKS
from gleam_mm.sweep import Job, Sweep, configure, read_results, training, worker
from gleam_mm.sweep.claim import LostTrialError
from gleam_mm.sweep.export import export
from gleam_mm.sweep.plan import FINAL, SELECT, Variant
from gleam_mm.sweep.status import remaining_seconds
from gleam_mm.sweep.study import begin_study
from gleam_mm.sweep.worker import Worker


@HOOKS.register_module(force=True)
class Peek(Hook):
    """Looks at a split that is closed while options are chosen."""

    def __init__(self, at):
        self.at = at

    def before_train_epoch(self, runner):
        if runner.cfg.val_dataloader is not None:
            VTAB1K('kitti', self.at, data_root='data/vtab-1k')


BASES = recipes.config_root() / '_base_'


def sweep(epochs=1, **settings):
    defaults = dict(
        backbone='tiny',
        methods=('lora',),
        datasets=('vtab-kitti',),
        seeds=(0, 1),
        grid={'lora': {'alpha': [1, 8]}},
        options={**OPTIONS, 'train_cfg.max_epochs': epochs},
    )
    return Sweep(**{**defaults, **settings})


def run(sweep, name='sweep'):
    storage = f'{name}/study.db'
    study = begin_study(storage, name, sweep)
    Worker(study, study_folder := training.Path(name).absolute()).run()
    return study, study_folder, read_results(storage)


def test_a_whole_sweep(place, tmp_path):
    study, folder, results = run(sweep(), 'whole')
    assert [(result.phase, result.seed) for result in results] == [
        (SELECT, 0),
        (SELECT, 0),
        (FINAL, 0),
        (FINAL, 1),
    ]
    assert all(result.state == 'complete' for result in results)
    select, final = results[:2], results[2:]
    assert all(len(result.curve) == 1 for result in results)
    assert [result.curve[0]['accuracy'] for result in select] == [r.accuracy for r in select]
    assert all(result.accuracy * 4 % 100 == 0 for result in select)  # of 4 images
    assert all('accuracy' not in result.curve[0] for result in final)
    hits = [result.accuracy * 6 / 100 for result in final]  # of 6 images
    assert hits == pytest.approx([round(number) for number in hits])
    best = max(select, key=lambda result: result.accuracy)
    assert all(result.options == best.options for result in final)
    # LoRA of rank 8 on the fused qkv of two blocks of width 32.
    assert {result.parameters for result in results} == {2 * 8 * (32 + 96)}
    assert not list(folder.rglob('*.pth'))
    assert len(list(folder.glob('final/*/*/adapter.safetensors'))) == 2
    assert not list(folder.glob('select/**/adapter.safetensors'))
    assert remaining_seconds(study.cells()) is None

    files, missing = export(study, tmp_path / 'out')
    assert not missing
    (file,) = files
    exported = recipes.load(file)
    assert exported.model.petl.alpha == best.options['alpha']
    final_cfg = training.make_config(
        study.sweep, Job(FINAL, 'lora', 'vtab-kitti', 0, dict(best.options))
    )[0]
    exported.randomness = final_cfg.randomness
    assert exported.to_dict() == final_cfg.to_dict()
    exported.work_dir = str(tmp_path / 'work')
    runner = PETLRunner.from_cfg(_with_classes(exported))
    runner.train()
    assert runner.test()['accuracy/top1'] == final[0].accuracy


@pytest.mark.slow
def test_variants(place, tmp_path):
    variants = {
        'lora': Variant('lora', {'optim_wrapper.optimizer.lr': 2e-3}),
        'lora-r2': Variant('lora', {'rank': 2}),
    }
    settings = sweep(methods=('lora', 'lora-r2'), variants=variants, seeds=(0,), grid={})
    study, folder, results = run(settings, 'variants')
    assert [(result.method, result.parameters) for result in results] == [
        ('lora', 2 * 8 * (32 + 96)),
        ('lora-r2', 2 * 2 * (32 + 96)),
    ]
    assert (folder / 'final' / 'lora-r2_vtab-kitti').is_dir()
    files, missing = export(study, tmp_path)
    assert not missing
    assert [file.name for file in files] == [
        'tiny_lora_vtab-kitti.py',
        'tiny_lora-r2_vtab-kitti.py',
    ]
    for file, job in zip(files, (cell.job for cell in study.cells()), strict=True):
        expected = training.make_config(study.sweep, job)[0]
        exported = recipes.load(file)
        exported.randomness = expected.randomness
        assert exported.to_dict() == expected.to_dict()


def _with_classes(cfg):
    fill_num_classes(cfg)
    return cfg


@pytest.mark.parametrize('split', ['test', pytest.param('train800val200', marks=pytest.mark.slow)])
def test_a_selection_that_opens_the_test_split_fails(place, split):
    peek = {**OPTIONS, 'custom_hooks': [dict(type='Peek', at=split)]}
    settings = sweep(options=peek, methods=('lora', 'linear'), seeds=(0,))
    _, _, results = run(settings, f'peek-{split}')
    states = {(result.method, result.phase): result for result in results}
    assert states['lora', SELECT].state == 'failed'
    assert f'the split {split!r} is closed now' in states['lora', SELECT].error
    assert states['lora', FINAL].state == 'waiting'
    assert states['linear', FINAL].state == 'complete'  # the sweep goes on
    text = (training.Path(states['lora', SELECT].log) / 'error.txt').read_text()
    assert 'before_train_epoch' in text


def test_an_error_that_no_encoding_has_fails_one_training(place, monkeypatch):
    def broken(*_):
        raise OSError('\udc80 日.png')

    monkeypatch.setattr(Worker, '_train', broken)
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO(), 'cp1252'))
    escape.unencodable_on_stdout()  # as main() does
    _, folder, results = run(sweep(methods=('linear',), grid={}, seeds=(0, 1)), 'unencodable')
    assert [result.state for result in results] == ['failed', 'failed']
    (error, _) = folder.rglob('error.txt')
    assert '\\udc80 日.png' in error.read_text()
    sys.stdout.flush()
    assert rb'OSError: \udc80 \u65e5.png' in sys.stdout.buffer.getvalue()


class Stop(BaseException):
    pass


def train(settings, folder, study='a', stop=None):
    """Trains the first point; ``stop`` ends it in an epoch's first iteration."""
    iterations = []

    def on_iteration(epoch, epochs):
        iterations.append((epoch, epochs))
        if epoch == stop:
            raise Stop

    job = settings.select_jobs('lora', 'vtab-kitti')[0]
    try:
        return training.train(settings, job, folder, study, on_iteration), iterations
    except Stop:
        return None, iterations


@pytest.mark.slow
def test_an_interrupted_training_goes_on(place, tmp_path):
    settings = sweep(epochs=3)
    whole, iterations = train(settings, tmp_path / 'whole')
    assert iterations == [(1, 3)] * 2 + [(2, 3)] * 2 + [(3, 3)] * 2
    assert train(settings, tmp_path / 'cut', stop=3) == (None, iterations[:5])
    resumed, rest = train(settings, tmp_path / 'cut')
    assert rest == iterations[4:]
    assert resumed.accuracy == whole.accuracy
    for ours, theirs in zip(resumed.curve, whole.curve, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_nothing_stays_of_a_training(place, tmp_path):
    train(sweep(epochs=2), tmp_path / 'first', stop=2)  # what runs keep once for a process

    def kept():
        kinds = MMLogger, MessageHub, DefaultScope, Visualizer, UniversalVisualizer
        open_files = len(list(Path('/proc/self/fd').iterdir()))
        return [{*kind._instance_dict} for kind in kinds], open_files

    before = kept()
    train(sweep(), tmp_path / 'whole')
    train(sweep(epochs=2), tmp_path / 'cut', stop=2)
    assert kept() == before


@pytest.mark.parametrize('phase', [SELECT, pytest.param(FINAL, marks=pytest.mark.slow)])
def test_a_training_that_was_killed_at_its_very_end_is_not_trained_again(
    place, tmp_path, monkeypatch, phase
):
    settings = sweep()
    job = next(job for job in settings.jobs('lora', 'vtab-kitti') if job.phase == phase)
    ends, iterations = [], []
    clean = training._clean

    def killed(*args):
        ends.append(args)
        if len(ends) == 1:
            raise Stop
        clean(*args)

    def again(folder):
        return training.train(settings, job, folder, 'a', lambda *_: iterations.append(1))

    monkeypatch.setattr(training, '_clean', killed)
    with pytest.raises(Stop):
        again(tmp_path / 'cut')
    trained = len(iterations)
    resumed = again(tmp_path / 'cut')
    assert len(iterations) == trained
    whole = again(tmp_path / 'whole')
    assert resumed._replace(seconds=0) == whole._replace(seconds=0)


@pytest.mark.slow
def test_a_folder_of_another_study_is_not_resumed(place, tmp_path):
    settings = sweep(epochs=2)
    train(settings, tmp_path / 'cut', stop=2)
    assert list((tmp_path / 'cut').glob('*.pth'))
    _, iterations = train(settings, tmp_path / 'cut', study='b')
    assert iterations[0] == (1, 2)
    assert json.loads((tmp_path / 'cut' / training.MARK).read_text())['study'] == 'b'


def test_sigterm_gives_the_training_back(place, monkeypatch):
    study = begin_study('stopped/study.db', 'stopped', sweep())
    trained = []

    def stopping(*args, **kwargs):
        trained.append(args)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError('SIGTERM had no effect')

    monkeypatch.setattr(training, 'train', stopping)
    before = signal.getsignal(signal.SIGTERM)
    Worker(study, place / 'stopped').run()
    assert len(trained) == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert [cell.state for cell in study.cells()] == ['waiting'] * 4


def test_stopped_within_a_bare_except(place, monkeypatch):
    """MMEngine's Config.pretty_text calls whatever is raised while it formats a SyntaxError."""
    study = begin_study('bare/study.db', 'bare', sweep())

    def stopped(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError('SIGTERM had no effect')

    monkeypatch.setattr('mmengine.config.config.FormatCode', stopped)
    Worker(study, folder := place / 'bare').run()
    assert [cell.state for cell in study.cells()] == ['waiting'] * 4
    assert not list(folder.rglob('error.txt'))


def test_stopped_within_a_callback_of_a_weak_reference(place, monkeypatch, capfd):
    """Python prints what is raised there, and goes on."""
    study = begin_study('dropped/study.db', 'dropped', sweep())

    class Target:
        pass

    def stopped(*args, **kwargs):
        target = Target()
        watched = weakref.ref(target, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del target
        assert watched() is None
        time.sleep(10)
        raise AssertionError('SIGTERM had no effect')

    monkeypatch.setattr(training, 'train', stopped)
    Worker(study, place / 'dropped').run()
    assert [cell.state for cell in study.cells()] == ['waiting'] * 4
    assert 'Traceback' not in capfd.readouterr().err


class Lost:
    """A claim that was given to another worker."""

    def beat(self):
        raise LostTrialError('given to another worker')


def test_a_worker_that_slept_looks_before_it_goes_on(monkeypatch):
    """Its thread for signs of life sleeps as it does, and has not looked yet either."""
    now = [1000.0]
    monkeypatch.setattr(worker.time, 'time', lambda: now[0])
    pulse = worker.Pulse(Lost(), 20, os.getppid())  # not entered: the thread has not begun
    now[0] += 3 * 20  # three signs of life are due only after this
    pulse.check(1, 2)
    now[0] += 1
    with pytest.raises(LostTrialError):
        pulse.check(1, 2)


@pytest.mark.slow
def test_trainings_of_other_backbones_are_not_compared(place):
    bases = place / 'configs' / '_base_' / 'backbones'
    text = (bases / 'tiny.py').read_text()
    named = text.index('init_cfg='), text.index('**{')
    (bases / 'random.py').write_text(text[: named[0]] + text[named[1] :])
    settings = sweep(backbone='random', grid={}, seeds=(0, 1))
    with pytest.raises(UserError, match='random: its weights are random'):
        configure.check(settings)
    _, _, (first, second) = run(settings, 'random')
    assert (first.state, second.state) == ('complete', 'failed')
    assert 'are not those of final lora vtab-kitti seed 0' in second.error
    # The weights that a method trains itself are compared as they were before.
    _, _, results = run(sweep(methods=('full', 'lora'), grid={}, seeds=(0,)), 'same')
    assert [result.state for result in results] == ['complete', 'complete']


@pytest.mark.slow
def test_a_sweep_on_a_folder_of_pictures(place):
    """Judged on a share of the training's folder; the other folder is for the test alone."""
    for folder, number in (('train', 10), ('val', 3)):
        for name, colour in (('dark', 0), ('bright', 255)):
            (place / 'birds' / folder / name).mkdir(parents=True)
            for index in range(number):
                picture = Image.new('RGB', (40, 32), (colour, index, 0))
                picture.save(place / 'birds' / folder / name / f'{index}.png')
    config = place / 'configs' / '_base_' / 'datasets' / 'birds.py'
    config.parent.mkdir()
    loaders = ''.join(
        f"{split}_dataloader = dict(num_workers=0, dataset=dict(data_root='birds'))\n"
        for split in ('train', 'val', 'test')
    )
    config.write_text(f'_base_ = {str(BASES / "datasets" / "folder.py")!r}\n{loaders}')
    options = {'train_cfg.max_epochs': 1, 'param_scheduler': None, 'train_dataloader.batch_size': 8}
    settings = dict(datasets=('birds',), seeds=(0,), options=options)
    configure.check(sweep(**settings))  # which opens no test
    _, _, results = run(sweep(**settings), 'birds-sweep')
    assert [(result.phase, result.state) for result in results] == [
        (SELECT, 'complete'),
        (SELECT, 'complete'),
        (FINAL, 'complete'),
    ]
    assert all(result.accuracy * 4 % 100 == 0 for result in results[:2])  # a fifth of 20
    hits = results[2].accuracy * 6 / 100  # all of the other folder
    assert hits == pytest.approx(round(hits))
