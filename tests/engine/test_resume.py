"""Killed and resumed is the same training, whatever the loop."""

import os
import random
import signal
import traceback
from pathlib import Path

import pytest
import torch
from runs import EPOCHS, ITERATIONS, Moments, build

from gleam_mm.checkpoint import load_from_local, read_adapter, read_state_dict
from gleam_mm.engine import find_resumable

WITHIN = dict(by_epoch=False, interval=1)  # a checkpoint every iteration
OVER_ITERATIONS = dict(by_epoch=False, max_iters=EPOCHS * ITERATIONS, val_interval=ITERATIONS)
WORKERS = dict(num_workers=2, persistent_workers=True)
AMP = dict(type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))


def accumulating(counts):
    return dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2), accumulative_counts=counts
    )


def averaging():
    return [dict(type='EMAHook', momentum=0.1)]


VARIANTS = {
    'epochs': lambda: {},
    'every second epoch': lambda: dict(checkpoint=dict(interval=2)),
    'without validation': lambda: dict(script=(), checkpoint=dict(save_best=None)),
    'iterations': lambda: dict(train_cfg=OVER_ITERATIONS, checkpoint=WITHIN, param_scheduler=None),
    'iterations without an end': lambda: dict(
        train_cfg=OVER_ITERATIONS,
        checkpoint=WITHIN,
        param_scheduler=None,
        loader=dict(sampler=dict(type='InfiniteSampler', shuffle=True)),
    ),
    'within epochs': lambda: dict(checkpoint=WITHIN),
    'workers': lambda: dict(loader=WORKERS),
    'workers within epochs': lambda: dict(loader=WORKERS, checkpoint=WITHIN),
    'accumulation': lambda: dict(optim_wrapper=accumulating(4)),
    'accumulation within epochs': lambda: dict(optim_wrapper=accumulating(3), checkpoint=WITHIN),
    'AMP': lambda: dict(optim_wrapper=AMP),
    'EMA': lambda: dict(hooks=averaging()),
    'EMA, AMP and accumulation': lambda: dict(
        hooks=averaging(), optim_wrapper=dict(AMP, accumulative_counts=4)
    ),
    'supernet': lambda: dict(model='NOAH'),
    'schedule of metrics': lambda: dict(
        param_scheduler=dict(
            type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', patience=0
        )
    ),
}
SCRIPT = (1.0, 3.0, 2.0)


@pytest.fixture
def start(make_classifier, tmp_path):
    """Builds a runner of a variant, resumed if there is something to resume."""

    def make(variant, folder):
        options = {'script': SCRIPT, **VARIANTS[variant]()}
        petl = options.pop('model', 'GLEAM')
        work_dir = tmp_path / folder
        path = find_resumable(work_dir)
        if path is not None:
            options |= dict(resume=True, load_from=str(path))
        return build(make_classifier(petl, num_classes=2), work_dir, **options)

    return make


@pytest.fixture(scope='module')
def known():
    return {}


@pytest.fixture
def uninterrupted(start, known, monkeypatch):
    """What a variant comes to without a kill, and how many moments there are for one."""

    def train(variant):
        if variant not in known:
            with monkeypatch.context() as patch:
                moments = Moments(patch)
                runner = start(variant, 'whole')
                runner.register_hook(moments)
                runner.train()
            known[variant] = final_state(runner), moments.count
        return known[variant]

    return train


def final_state(runner):
    folder = Path(runner.work_dir)
    last = Path((folder / 'last_checkpoint').read_text())
    content = load_from_local(str(last), 'cpu')
    scalars = content['message_hub']['log_scalars']
    tensors, metadata = read_adapter(folder / 'adapter.safetensors')
    return {
        'weights': content['state_dict'],
        'averaged': content.get('ema_state_dict', {}),
        'adapter': tensors,
        'metadata': metadata,
        'files': sorted(path.name for path in folder.iterdir() if path.suffix not in ('.py', '')),
        'best weights': [read_state_dict(path) for path in sorted(folder.glob('best_*'))],
        'best': content['message_hub']['runtime_info'].get('best_score'),
        'rates': [group['lr'] for group in content['optimizer']['param_groups']],
        'curves': {
            name: scalars[name].data[0].tolist()
            for name in ('train/loss', 'train/lr', 'val/accuracy/top1')
            if name in scalars
        },
    }


def assert_same(ours, theirs, where='run'):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f'{where}: {key}')
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f'{where}: {index}')
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


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
    assert_same(final_state(resumed), expected)
