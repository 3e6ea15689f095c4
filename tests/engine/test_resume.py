"""Killed and resumed is the same training, whatever the loop."""

import os
import random
import shutil
import signal
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from mmengine import Config
from runs import (
    EPOCHS,
    ITERATIONS,
    VARIANTS,
    WITHIN,
    Moments,
    Pictures,
    accumulating,
    assert_same,
    build_variant,
    final_state,
    to_sample,
)
from together import together

from gleam_mm.engine import find_resumable, init_dist
from gleam_mm.errors import UserError


@pytest.fixture
def start(make_classifier, tmp_path):
    """Builds a runner of a variant, resumed if there is something to resume."""

    def make(variant, folder):
        return build_variant(variant, make_classifier, tmp_path / folder)

    return make


@pytest.fixture(scope='module')
def known():
    return {}


@pytest.fixture
def uninterrupted(start, known, monkeypatch, tmp_path):
    """What a variant comes to without a kill, and how many moments there are for one."""

    def train(variant):
        if variant not in known:
            with monkeypatch.context() as patch:
                moments = Moments(patch)
                runner = start(variant, 'whole')
                runner.register_hook(moments)
                runner.train()
            known[variant] = final_state(tmp_path / 'whole'), moments.count
        return known[variant]

    return train


def killed(start, number):
    """Trains in a process of its own that is killed at a moment; tells whether it came to that."""
    process = os.fork()
    if process == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                runner = start()
                runner.register_hook(Moments(patch, number))
                runner.train()
            os._exit(0)
        finally:  # whatever is raised, this is no second pytest
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


@pytest.mark.parametrize('variant', VARIANTS)
def test_killed_three_times_and_resumed_equals_uninterrupted(variant, start, uninterrupted):
    expected, moments = uninterrupted(variant)
    generator = random.Random(variant)
    kills = sorted(generator.sample(range(1, moments + 1), 3))
    last = 0
    for number in kills:  # later ones may come after the end, since a resumed run has less to do
        killed(lambda: start(variant, 'killed'), number - last)
        last = number
    resumed = start(variant, 'killed')
    resumed.train()
    assert_same(final_state(resumed.work_dir), expected)


def test_two_processes_go_on_accumulating(make_runner, tmp_path):
    ddp = Config(dict(launcher='pytorch'))

    def train(rank):
        init_dist(ddp)
        options = dict(
            script=(),
            optim_wrapper=accumulating(3),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            checkpoint=dict(max_keep_ckpts=-1, save_best=None),
            loader=dict(batch_size=2),
            launcher='pytorch',
            cfg=dict(model_wrapper_cfg=ddp.model_wrapper_cfg),
        )
        make_runner(work_dir=tmp_path / 'whole', **options).train()
        resume(make_runner, tmp_path / 'whole/epoch_1.pth', **options)

    together(train, tmp_path / 'store')
    resumed, whole = (final_state(tmp_path / name) for name in ('run', 'whole'))
    for kind in ('weights', 'adapter', 'metadata', 'curves'):
        assert_same(resumed[kind], whole[kind])


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


def test_best_checkpoints_and_bare_weights_are_not_resumed(finished):
    for path in finished.glob('epoch_*.pth'):
        path.unlink()
    torch.save({'state_dict': {'a': torch.ones(1)}}, finished / 'epoch_9.pth')
    assert list(finished.glob('best_*'))
    with pytest.warns(UserWarning, match=r'epoch_9\.pth: .* lacks meta, message_hub, optimizer'):
        assert find_resumable(finished) is None


def test_epoch_10_is_newer_than_epoch_9(finished):
    (finished / 'epoch_2.pth').rename(finished / 'epoch_9.pth')
    (finished / 'epoch_1.pth').rename(finished / 'epoch_10.pth')
    assert find_resumable(finished) == finished / 'epoch_10.pth'


def test_newest_is_found_where_a_kill_came_before_it_was_named(finished):
    (finished / 'last_checkpoint').write_text(str(finished / 'epoch_2.pth'))
    assert find_resumable(finished) == finished / 'epoch_3.pth'


@pytest.mark.parametrize('content', [b'\x80\xff\0', b'x' * 100_000, b'', None])
def test_last_checkpoint_that_names_nothing(content, finished):
    pointer = finished / 'last_checkpoint'
    pointer.unlink()
    if content is None:
        pointer.mkdir()
    else:
        pointer.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        assert find_resumable(finished) == finished / 'epoch_3.pth'


def test_what_is_no_checkpoint_of_ours_is_passed_over(finished):
    (finished / 'epoch_4.pth').mkdir()
    content = torch.load(finished / 'epoch_3.pth', weights_only=True)
    torch.save(content, finished / 'zz_100.pth')
    with pytest.warns(UserWarning) as told:
        assert find_resumable(finished) == finished / 'epoch_3.pth'
    told = ' '.join(str(warning.message) for warning in told)
    assert 'epoch_4.pth: a directory' in told and 'zz_100.pth: not named as' in told


def test_adapter_cannot_be_resumed(finished, make_runner):
    path = finished / 'adapter.safetensors'
    with pytest.raises(UserError, match=r'adapter\.safetensors: holds weights, but no state'):
        make_runner(resume=True, load_from=str(path)).train()


def test_moved_work_directory_is_resumed(finished, tmp_path):
    moved = finished.rename(tmp_path / 'moved')
    assert find_resumable(moved) == moved / 'epoch_3.pth'


def test_a_copy_of_a_work_directory_is_resumed_by_itself(finished, make_runner, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / 'copy'))
    before = sorted(finished.iterdir())
    (finished / 'epoch_3.pth').rename(finished / 'epoch_9.pth')  # it has gone on
    assert find_resumable(copy) == copy / 'epoch_3.pth'
    (finished / 'epoch_9.pth').rename(finished / 'epoch_3.pth')
    best = next(copy.glob('best_*'))
    make_runner(
        work_dir=str(copy),
        resume=True,
        load_from=str(copy / 'epoch_3.pth'),
        script=(1.0, 2.0, 3.0, 4.0, 5.0),
        train_cfg=dict(by_epoch=True, max_epochs=5),
    ).train()
    assert sorted(finished.iterdir()) == before
    assert not best.exists() and [p.name for p in copy.glob('best_*')] != [best.name]


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


def test_last_checkpoint_never_names_what_is_not_there(make_runner, monkeypatch):
    runner = make_runner(checkpoint=dict(max_keep_ckpts=1))
    pointer = Path(runner.work_dir) / 'last_checkpoint'
    named = []
    replace = Path.replace

    def watch(path, target):
        replace(path, target)
        if pointer.exists():
            named.append(Path(pointer.read_text()))
            assert named[-1].is_file() or Path(runner.work_dir, named[-1].name).is_file()

    monkeypatch.setattr(Path, 'replace', watch)
    runner.train()
    assert {path.name for path in named} == {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}


# What cannot be resumed


def resume(make_runner, path, **options):
    runner = make_runner(resume=True, load_from=str(path), **options)
    runner.train()
    return runner


def test_best_checkpoint_is_refused(finished, make_runner):
    path = next(finished.glob('best_*'))
    with pytest.raises(UserError, match=rf'{path.name}: has no state of the optimizer'):
        resume(make_runner, path)


def test_optimizer_of_other_parameters_is_refused(finished, make_runner):
    content = torch.load(finished / 'epoch_2.pth', weights_only=True)
    state = content['optimizer']['state']
    state[0]['exp_avg'] = torch.zeros(3, 7)
    torch.save(content, finished / 'epoch_7.pth')
    with pytest.raises(UserError, match=r'epoch_7\.pth: exp_avg of parameter 0 has the shape'):
        resume(make_runner, finished / 'epoch_7.pth')


def test_another_optimizer_is_refused(finished, make_runner):
    sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    with pytest.raises(UserError, match=r'epoch_2\.pth: is of another optimizer than SGD'):
        resume(make_runner, finished / 'epoch_2.pth', optim_wrapper=sgd)


def test_another_seed_is_refused(finished, make_runner):
    with pytest.raises(UserError, match='with the seed 0, not 3; resume with --seed 0'):
        resume(make_runner, finished / 'epoch_2.pth', randomness=dict(seed=3))


def test_another_length_of_epochs_is_refused_within_one(make_runner, tmp_path):
    make_runner(checkpoint=dict(WITHIN, max_keep_ckpts=-1)).train()
    with pytest.raises(UserError, match='cannot resume within epoch 2'):
        resume(make_runner, tmp_path / 'run/iter_3.pth', loader=dict(batch_size=2))


def test_other_classes_are_refused(finished, make_runner):
    swapped = Pictures(metainfo=dict(classes=('bright', 'dark')), serialize_data=False)
    adapter = (finished / 'adapter.safetensors').read_bytes()
    with pytest.raises(UserError, match="than the checkpoint: class 0 is 'bright', and 'dark'"):
        resume(make_runner, finished / 'epoch_2.pth', loader=dict(dataset=swapped))
    assert (finished / 'adapter.safetensors').read_bytes() == adapter


def test_a_config_is_replaced_once_the_resume_is_accepted(finished, make_runner, tmp_path):
    def config_of(text, **options):
        (tmp_path / 'mine.py').write_text(text)
        cfg = Config.fromfile(tmp_path / 'mine.py')
        with suppress(UserError):
            resume(make_runner, finished / 'epoch_2.pth', cfg=cfg, **options)
        return Config.fromfile(finished / 'mine.py').rank

    assert config_of('rank = 8') == 8
    assert config_of('rank = 4', randomness=dict(seed=3)) == 8
    assert config_of('rank = 4') == 4


# Resuming with other settings


def test_other_places_of_data_are_told(finished, make_runner, monkeypatch):
    told = []
    monkeypatch.setattr('mmengine.logging.MMLogger.warning', lambda _, text: told.append(text))
    moved = Pictures(data_root='elsewhere', pipeline=[to_sample], serialize_data=False)
    for loader in ({}, dict(dataset=moved)):
        resume(make_runner, finished / 'epoch_2.pth', loader=loader)
    (text,) = (text for text in told if 'other data' in text)
    assert 'train_dataloader.dataset: data_prefix ' in text
    assert text.endswith('; data_root None -> elsewhere')


def rates(runner):
    return runner.message_hub.get_scalar('train/lr').data[0].tolist()


def asked(lr=1e-2, weight_decay=0.01):
    optimizer = dict(type='AdamW', lr=lr, weight_decay=weight_decay)
    return dict(type='OptimWrapper', optimizer=optimizer)


LONGER = dict(by_epoch=True, max_epochs=5)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize(
    'options',
    [
        dict(train_cfg=LONGER),
        dict(optim_wrapper=asked(lr=3e-2)),
        dict(loader=dict(batch_size=2)),
        dict(train_cfg=LONGER, loader=dict(batch_size=8), optim_wrapper=asked(lr=1e-3)),
    ],
)
def test_rates_go_on_as_the_new_settings_have_them(options, by_epoch, make_runner, tmp_path):
    parts = [
        dict(type='LinearLR', start_factor=0.1, end=1),
        dict(type='CosineAnnealingLR', begin=1),
    ]
    options = dict(
        options, param_scheduler=[dict(part, convert_to_iter_based=not by_epoch) for part in parts]
    )
    whole = make_runner(**options, script=range(9), work_dir=tmp_path / 'whole')
    whole.train()
    first = {'param_scheduler': options['param_scheduler'], 'script': range(9)}
    make_runner(**first, checkpoint=dict(max_keep_ckpts=-1)).train()
    resumed = resume(make_runner, tmp_path / 'run/epoch_2.pth', script=range(9), **options)
    rest = len(rates(resumed)) - 2 * ITERATIONS
    assert rest == len(rates(whole)) * (resumed.epoch - 2) / resumed.epoch > 0
    assert rates(resumed)[-rest:] == rates(whole)[-rest:]


def test_new_weight_decay_counts(finished, make_runner):
    runner = resume(make_runner, finished / 'epoch_2.pth', optim_wrapper=asked(weight_decay=0.5))
    assert runner.optim_wrapper.optimizer.param_groups[0]['weight_decay'] == 0.5


def test_schedule_of_metrics_cannot_be_run_through_again(make_runner, tmp_path):
    plateau = dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater')
    make_runner(param_scheduler=plateau).train()
    with pytest.raises(UserError, match=r'initial_lr 0\.01 -> 0\.5|lr 0\.01 -> 0\.5'):
        resume(
            make_runner,
            tmp_path / 'run/epoch_3.pth',
            param_scheduler=plateau,
            optim_wrapper=asked(lr=0.5),
        )


# Early stopping


def stopping(patience=2):
    return [dict(type='EarlyStoppingHook', monitor='accuracy/top1', min_delta=5, patience=patience)]


def test_early_stopping_goes_on_waiting(make_runner, tmp_path):
    options = dict(
        script=(1.0, 3.0, 2.0, 3.0, 9.0), train_cfg=LONGER, checkpoint=dict(max_keep_ckpts=-1)
    )
    whole = make_runner(hooks=stopping(), **options)
    whole.train()
    expected = final_state(whole.work_dir)
    assert whole.epoch == 3
    for epoch in (1, 2, 3):  # it was stopped after the last of them
        path = tmp_path / f'run/epoch_{epoch}.pth'
        assert resume(make_runner, path, hooks=stopping(), **options).epoch == 3
        assert_same(final_state(whole.work_dir), expected)
    patient = resume(make_runner, tmp_path / 'run/epoch_3.pth', hooks=stopping(4), **options)
    assert patient.epoch == 5


def test_early_stopping_leaves_runs_alone_that_do_not_train(make_runner):
    runner = make_runner(
        hooks=stopping(1),
        test=True,
        train_dataloader=None,
        train_cfg=None,
        optim_wrapper=None,
        param_scheduler=None,
    )
    assert 'accuracy/top1' in runner.val()
    assert 'accuracy/top1' in runner.test()


def test_warmup_of_one_step_reaches_the_rate(make_runner):
    warmup = dict(type='LinearLR', start_factor=0.001, end=1, by_epoch=False)
    runner = make_runner(param_scheduler=[warmup])
    runner.train()
    assert rates(runner) == [0.01] * EPOCHS * ITERATIONS


def test_no_batch_is_told(make_runner):
    with pytest.raises(UserError, match='of 8 images, batches of 9 with drop_last=True leave'):
        make_runner(loader=dict(batch_size=9, drop_last=True)).train()
