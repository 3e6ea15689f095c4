"""Two processes that share out the frozen weights train as one that has all of them."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from runs import assert_same, final_state
from test_two_processes import STILL
from together import together
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.tensor import DTensor

from gleam_mm.checkpoint import read_adapter
from gleam_mm.engine import find_resumable, init_dist
from gleam_mm.engine.checks import check_strategy
from gleam_mm.engine.dist import unwrapped
from gleam_mm.models import ShardedDataParallel
from gleam_mm.registry import MODEL_WRAPPERS

SGD = dict(type='SGD', lr=0.1, momentum=0.9)
METHODS = {
    'GLEAM': dict(rank=4, num_experts=1, top_k=1),  # one expert: the gate's noise changes nothing
    'BitFit': {},  # trains parameters of the blocks that are sharded
    'VPT': {},  # adds tokens
    'DTL': {},  # reads what blocks give
    'GLoRA': {},  # computes with frozen weights
    'SparseTuning': {},  # does as well, in places that the weights have chosen when it was built
}

SLOW = 'VPT', 'DTL', 'SparseTuning'


def options_for(processes, **options):
    """What makes a runner of a test train on the same eight images with any number of processes."""
    return dict(
        loader=dict(
            batch_size=8 // processes,
            dataset=STILL,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        optim_wrapper=dict(type='OptimWrapper', optimizer=SGD),
        param_scheduler=None,
        checkpoint=dict(save_best=None, max_keep_ckpts=-1),
        launcher='none' if processes == 1 else 'pytorch',
        **options,
    )


def wrapped(**wrapper):
    """The config of a training with several processes."""
    config = Config(dict(launcher='pytorch', model_wrapper_cfg=wrapper))
    init_dist(config)
    return dict(model_wrapper_cfg=config.model_wrapper_cfg.to_dict())


def assert_ended_alike(one, two):
    """Two work directories have the same files, and weights but for rounding."""
    one, two = final_state(one), final_state(two)
    assert one['files'] == two['files']  # adapter.safetensors and epoch_1.pth to epoch_3.pth
    for kind in ('weights', 'adapter'):
        assert one[kind].keys() == two[kind].keys()
        for name, tensor in one[kind].items():
            torch.testing.assert_close(two[kind][name], tensor, atol=1e-5, rtol=0)
    same = ('backbone_fingerprint', 'method', 'backbone', 'head')
    assert_same(*({key: state['metadata'][key] for key in same} for state in (one, two)))


class Watch(Hook):
    """Sees how much of the frozen weights a process holds between two steps."""

    def __init__(self):
        self.held = self.whole = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        frozen = [p for p in unwrapped(runner.model).parameters() if not p.requires_grad]
        assert all(isinstance(p, DTensor) for p in frozen)
        self.held = sum(p.to_local().numel() for p in frozen)
        self.whole = sum(p.numel() for p in frozen)


@pytest.mark.parametrize(
    'method',
    [
        pytest.param(method, marks=[pytest.mark.slow] if method in SLOW else [])
        for method in METHODS
    ],
)
def test_two_that_share_are_as_one(method, make_runner, make_classifier, tmp_path):
    def model():
        return make_classifier(method, num_classes=2, **METHODS[method])

    def share(rank):
        watch = Watch()
        make_runner(
            model(),
            tmp_path / 'two',
            **options_for(2, hooks=[watch], cfg=wrapped(type='ShardedDataParallel')),
        ).train()
        assert 0.45 < watch.held / watch.whole < 0.55

    make_runner(model(), tmp_path / 'one', **options_for(1)).train()
    together(share, tmp_path / 'store')
    assert_ended_alike(tmp_path / 'one', tmp_path / 'two')


def test_goes_on_with_another_number_of_processes(make_runner, make_classifier, tmp_path):
    """Two processes begin, one goes on; the other way round; and one does it all."""

    def train(folder, processes, epochs):
        path = find_resumable(folder)
        cfg = wrapped(type='ShardedDataParallel') if processes > 1 else {}
        make_runner(
            make_classifier('LoRA', num_classes=2),
            folder,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            **options_for(processes, cfg=cfg),
            **(dict(resume=True, load_from=str(path)) if path else {}),
        ).train()

    def go_on(folder, *shares):
        for processes, epochs in shares:
            if processes == 1:
                train(tmp_path / folder, 1, epochs)
            else:
                store = tmp_path / f'store of {folder}'
                together(lambda rank, e=epochs: train(tmp_path / folder, 2, e), store)
        return read_adapter(tmp_path / folder / 'adapter.safetensors')

    expected, metadata = go_on('whole', (1, 5))
    for folder, shares in (('fewer', ((2, 2), (1, 5))), ('more', ((1, 2), (2, 5)))):
        found, told = go_on(folder, *shares)
        assert told['epoch'] == metadata['epoch'] == 5
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)


def test_other_frozen_weights_in_a_process_are_refused(make_classifier, tmp_path):
    def share(rank):
        with pytest.raises(ValueError, match='processes have backbones of other weights'):
            ShardedDataParallel(make_classifier('LoRA', seed=rank))

    together(share, tmp_path / 'store')


@pytest.mark.parametrize(
    'model, message',
    [
        (lambda make: make('FullTuning'), 'FullTuning trains the whole backbone'),
        (lambda make: make('SPT', budget=100), 'SPT looks at the whole backbone before it trains'),
        (
            lambda make: make('SparseTuning', select='gradient'),
            'SparseTuning looks at the whole backbone before it trains',
        ),
        (lambda make: nn.Linear(2, 2), 'shards a frozen backbone, and Linear has none'),
        (lambda make: of_half_the_bits(make('LoRA')), 'does not shard quantised weights'),
    ],
)
def test_what_cannot_be_sharded_is_refused(model, message, make_classifier):
    with pytest.raises(ValueError, match=message):
        ShardedDataParallel(model(make_classifier))


def of_half_the_bits(model):
    weight = model.backbone.layers[0].ffn.layers[1].weight
    model.backbone.layers[0].ffn.layers[1].weight = nn.Parameter(
        weight.to(torch.int8), requires_grad=False
    )
    return model


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(runner_type='FlexibleRunner'), 'runner_type=FlexibleRunner: .*strategy=fsdp'),
        (dict(strategy=dict(type='DeepSpeedStrategy')), 'strategy=.*DeepSpeed.*strategy=fsdp'),
        (
            dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')),
            'model_wrapper_cfg.type=MMFully.*strategy=fsdp',
        ),
        (
            dict(
                model_wrapper_cfg=dict(type='ShardedDataParallel'),
                custom_hooks=[dict(type='EMAHook')],
            ),
            'EMAHook copies the whole model',
        ),
        (
            dict(
                model_wrapper_cfg=dict(type='ShardedDataParallel'),
                default_hooks=dict(device_cache=dict(cache_features=True)),
            ),
            'cache_features computes blocks one by one',
        ),
        (
            dict(model_wrapper_cfg=dict(type='ShardedDataParallel'), compile=True),
            'compile=True has not been tried',
        ),
    ],
)
def test_what_cannot_be_combined_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_strategy(Config(options))


def test_one_process_shards_nothing_and_says_so(make_runner, tmp_path):
    cfg = dict(model_wrapper_cfg=dict(type='ShardedDataParallel'))
    runner = make_runner(cfg=cfg, log_level='WARNING')
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert type(runner.model).__name__ == 'PETLClassifier'
    assert 'one process, so that nothing is sharded' in log


def test_gradients_are_one_message(make_classifier, tmp_path):
    """Each step sends every trained number once, all of them in one bucket."""

    def step(rank):
        model = make_classifier('GLEAM', num_classes=12_000)  # more than PyTorch's first MiB
        wrapper = MODEL_WRAPPERS.build(
            wrapped()['model_wrapper_cfg'], default_args=dict(module=model)
        )
        sent = []

        def note(state, bucket):
            sent[-1].append(bucket.buffer().nbytes)
            return allreduce_hook(state, bucket)

        wrapper.register_comm_hook(None, note)
        images = torch.randn(2, 3, 32, 32)
        for _ in range(3):
            sent.append([])
            wrapper(images, mode='tensor').square().mean().backward()
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert sent == [[4 * trained]] * 3
        assert 4 * trained > 2**20

    together(step, tmp_path / 'store')
