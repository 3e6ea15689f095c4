"""Two processes whose frozen weights DeepSpeed shares out train as one that has all of them."""

import sys

import pytest
import torch
from mmengine.hooks import Hook
from test_sharded import METHODS as SHARDED
from test_sharded import assert_ended_alike, options_for, wrapped
from together import together

from gleam_mm.checkpoint import read_adapter
from gleam_mm.config import recipes
from gleam_mm.engine import find_resumable
from gleam_mm.engine.dist import is_sharded, unwrapped
from gleam_mm.models import ZeroDataParallel, params

try:
    import deepspeed
except ImportError:
    deepspeed = None
else:
    # It would be compiled for a minute; without it, processes talk through gloo alone.
    deepspeed.ops.__compatible_ops__['deepspeed_shm_comm'] = False
needs_deepspeed = pytest.mark.skipif(deepspeed is None, reason='DeepSpeed is not installed')

METHODS = {name: SHARDED[name] for name in ('GLEAM', 'VPT', 'DTL', 'GLoRA')}
SHARED_OUT = dict(type='ZeroDataParallel', zero_optimization=dict(stage3_prefetch_bucket_size=0))


class Watch(Hook):
    """Sees what of the frozen weights a process holds between two steps."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = unwrapped(runner.model)
        parameters = [*model.backbone.parameters()]
        assert not any(p.numel() for p in parameters)
        parts, whole = sum(p.ds_tensor.numel() for p in parameters), params.size(model.backbone)
        assert 0.5 <= parts / whole < 0.55  # odd ones are filled up
        assert params.count(model).frozen == whole


@needs_deepspeed
@pytest.mark.parametrize('method', METHODS)
def test_two_that_share_are_as_one(method, make_runner, make_classifier, tmp_path):
    def model():
        return make_classifier(method, num_classes=2, **METHODS[method])

    def share(rank):
        make_runner(
            model(),
            tmp_path / 'two',
            **options_for(2, hooks=[Watch()], cfg=wrapped(**SHARED_OUT)),
        ).train()

    make_runner(model(), tmp_path / 'one', **options_for(1)).train()
    together(share, tmp_path / 'store')
    assert_ended_alike(tmp_path / 'one', tmp_path / 'two')


@needs_deepspeed
def test_goes_on_with_another_number_of_processes(make_runner, make_classifier, tmp_path):
    def train(folder, processes, epochs):
        path = find_resumable(folder)
        make_runner(
            make_classifier('LoRA', num_classes=2),
            folder,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            **options_for(processes, cfg=wrapped(**SHARED_OUT) if processes > 1 else {}),
            **(dict(resume=True, load_from=str(path)) if path else {}),
        ).train()

    train(tmp_path / 'one', 1, 4)
    train(tmp_path / 'both', 1, 2)
    together(lambda rank: train(tmp_path / 'both', 2, 4), tmp_path / 'store')
    expected, metadata = read_adapter(tmp_path / 'one' / 'adapter.safetensors')
    found, told = read_adapter(tmp_path / 'both' / 'adapter.safetensors')
    assert told['epoch'] == metadata['epoch'] == 4
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)


def test_the_strategy_names_it_and_takes_its_options():
    offload = {'model_wrapper_cfg.zero_optimization.offload_param.device': 'cpu'}
    cfg = recipes.load('vit-mini_lora_mini-digits', {'strategy': 'deepspeed', **offload})
    assert is_sharded(cfg.model_wrapper_cfg)
    assert cfg.model_wrapper_cfg.zero_optimization == dict(offload_param=dict(device='cpu'))


@pytest.mark.parametrize(
    'method, zero, message',
    [
        ('BitFit', {}, r'BitFit trains parameters of the backbone itself \(.*strategy=fsdp'),
        ('FullTuning', {}, 'FullTuning trains the whole backbone, and ZeroDataParallel shards'),
        ('LoRA', dict(stage=2), r'zero_optimization.stage=2: stages 1 and 2 .* small adapter'),
    ],
)
def test_what_cannot_be_shared_out_is_refused(method, zero, message, make_classifier):
    with pytest.raises(ValueError, match=message):
        ZeroDataParallel(make_classifier(method), zero_optimization=zero)


def test_without_deepspeed_says_what_to_install(make_classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, 'deepspeed', None)
    with pytest.raises(ImportError, match='needs DeepSpeed: pip install deepspeed'):
        ZeroDataParallel(make_classifier('LoRA'))
