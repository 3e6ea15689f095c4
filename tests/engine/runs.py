"""Trainings of seconds, for tests of what survives a kill."""

import itertools
import os
import signal
from pathlib import Path

import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from torch import nn

from gleam_mm.checkpoint import load_from_local, read_adapter, read_state_dict
from gleam_mm.engine import PETLRunner, find_resumable
from gleam_mm.registry import METRICS

RUNS = itertools.count()  # MMEngine keeps one message hub an experiment name
EPOCHS, ITERATIONS = 3, 2  # iterations an epoch


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


# Serialised, as MMEngine has it, a dataset collects garbage, which takes longer than the training.
PICTURES = Pictures(pipeline=[to_sample], serialize_data=False)


class Scripted(BaseMetric):
    """An accuracy that goes the way a test wants it to, one value a validation."""

    script = ()
    default_prefix = 'accuracy'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'top1': self.now()}

    def now(self):
        return self.script[MessageHub.get_current_instance().get_info('iter_of_test') - 1]


METRICS.register_module(name='ScriptedAccuracy', module=Scripted)


class TellMetric(Hook):
    """Tells the scripted metric which epoch it is."""

    def before_val_epoch(self, runner):
        runner.message_hub.update_info('iter_of_test', runner.iter // ITERATIONS)


class Plain(BaseModel):
    """A model that is no PETLClassifier."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.linear(torch.stack(list(inputs)).mean((-1, -2)))
        return {'loss': scores.square().mean()} if mode == 'loss' else [scores]


def loader_of(dataset):
    """The dataloader of a training: four images a batch, in another order in each epoch."""
    return dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dataset,
        collate_fn=dict(type='default_collate'),
    )


def build(
    model,
    work_dir,
    script=(1.0, 2.0, 3.0),
    hooks=(),
    schedule=True,
    test=False,
    kind=PETLRunner,
    **cfg,
):
    """Builds a runner that trains on 8 images for 3 epochs of 2 iterations."""
    Scripted.script = list(script)
    loader = loader_of(PICTURES)
    evaluation = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False), num_workers=0)
    loader.update(cfg.pop('loader', {}))
    checkpoint = dict(type='AdapterCheckpointHook', interval=1, max_keep_ckpts=1, save_best='auto')
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
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2)),
        param_scheduler=dict(type='CosineAnnealingLR', convert_to_iter_based=True)
        if schedule
        else None,
        default_hooks=dict(checkpoint=checkpoint, epoch_seed=dict(type='EpochSeedHook')),
        custom_hooks=[TellMetric(), *hooks],
        randomness=dict(seed=0),
        default_scope='gleam_mm',
        log_level='ERROR',
        experiment_name=f'run {next(RUNS)}',
    )
    return kind(model=model, work_dir=str(work_dir), **{**config, **validation, **cfg})


class Moments(Hook):
    """Counts the moments at which a kill may come, and comes at one of them.

    Before each iteration and each validation, between the forward and the backward pass, and in the
    middle of each write and after it.
    """

    priority = 'LOWEST'

    def __init__(self, monkeypatch, number=None):
        self.number, self.count = number, 0
        replace, step = Path.replace, OptimWrapper.update_params

        def replace_or_die(path, target):  # how every file comes to its name
            self.pass_by(lambda: half(target))
            replace(path, target)
            self.pass_by()

        def step_or_die(wrapper, *args, **kwargs):
            self.pass_by()
            step(wrapper, *args, **kwargs)

        monkeypatch.setattr(Path, 'replace', replace_or_die)
        monkeypatch.setattr(OptimWrapper, 'update_params', step_or_die)

    def pass_by(self, before=lambda: None):
        self.count += 1
        if self.count == self.number:
            before()
            os.kill(os.getpid(), signal.SIGKILL)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.pass_by()

    def before_val_epoch(self, runner):
        self.pass_by()

    def after_val_epoch(self, runner, metrics=None):
        self.pass_by()


def half(path):
    """Leaves what a kill in the middle of a write leaves."""
    Path(path).with_name(f'.writing-1-{Path(path).name}').write_bytes(b'PK half')


# What is killed, and compared with the run that was not.

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


def build_variant(variant, make_classifier, work_dir):
    """Builds the runner of a variant, resumed if there is something to resume."""
    options = {'script': SCRIPT, **VARIANTS[variant]()}
    petl = options.pop('model', 'GLEAM')
    path = find_resumable(work_dir)
    if path is not None:
        options |= dict(resume=True, load_from=str(path))
    return build(make_classifier(petl, num_classes=2), work_dir, **options)


def final_state(folder):
    """What a training came to, read from its files."""
    folder = Path(folder)
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
