"""The forecast of a step's memory, against PyTorch's allocator."""

import importlib.util
from pathlib import Path

import pytest
import torch

from gleam_mm.doctor import LiveMemory, forecast
from gleam_mm.doctor.memory import forecasts
from gleam_mm.models import build_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def benchmark():
    """benchmarks/memory.py, which takes the allocator's word for the peak."""
    spec = importlib.util.spec_from_file_location('memory', ROOT / 'benchmarks' / 'memory.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(benchmark, method):
    cfg = benchmark.config('vit-s', method, batch_size=3, image_size=32)
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    cfg.model.backbone.update(arch=arch, patch_size=8)
    cfg.model.head.in_channels = 32
    return cfg


@pytest.mark.parametrize('method', ['gleam-l', 'lora', 'linear', 'full', 'bi-adaptformer'])
def test_it_is_what_the_allocator_gives(method, benchmark):
    cfg = tiny(benchmark, method)
    model = build_model(cfg).train()
    told = forecast(cfg, model)
    assert told == pytest.approx(benchmark.of_allocator(cfg, model), rel=0.03)


def test_the_model_is_left_as_it_was(benchmark):
    cfg = tiny(benchmark, 'lora')
    model = build_model(cfg)
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict().items()}
    own = dict(model.named_parameters())
    forecast(cfg, model)
    assert not model.training
    for name, parameter in model.named_parameters():
        assert parameter is own[name] and parameter.grad is None
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == before[name][0].data_ptr() or name == '_extra_state'
        assert torch.equal(tensor, before[name][1])
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_other_batches_optimizers_and_precisions_take_other_memory(benchmark):
    peaks = []
    for change in (
        {},
        {'train_dataloader.batch_size': 6},
        {'optim_wrapper.optimizer': dict(type='SGD', lr=0.1, _delete_=True)},
        {'optim_wrapper.type': 'AmpOptimWrapper'},
    ):
        cfg = tiny(benchmark, 'full')
        cfg.merge_from_dict(change)
        peaks.append(forecast(cfg, build_model(cfg)))
    usual, larger, plain, half = peaks
    assert larger > 1.2 * usual
    weights = benchmark.stored(build_model(tiny(benchmark, 'full')))
    assert usual - plain == pytest.approx(2 * weights, rel=0.05)  # AdamW's two moments
    assert half != usual


def test_methods_take_turns_on_one_backbone(benchmark):
    cfg = tiny(benchmark, 'lora')
    model = build_model(cfg)
    found = dict(forecasts(cfg, model, ['linear', 'gleam-l', 'lora']))
    assert found['linear'] < found['lora'] < found['gleam-l']
    alone = tiny(benchmark, 'gleam-l')
    assert found['gleam-l'] == forecast(alone, build_model(alone))


def test_memory_that_is_given_back_counts_no_more():
    there = torch.zeros(1000)
    with LiveMemory([there]) as memory:
        for _ in range(3):
            kept = torch.zeros(500)
            view = kept.view(5, 100)
            del kept
            view.mul_(2)
    assert memory.peak == 4 * (1000 + 2 * 500)  # the next is made while the last is still there


@pytest.mark.slow
@pytest.mark.parametrize('batch', [2, 8])
@pytest.mark.parametrize('backbone', ['vit-s', 'swin-t'])
def test_within_a_tenth_on_models_of_a_true_size(backbone, batch, benchmark):
    for method in benchmark.METHODS:
        cfg = benchmark.config(backbone, method, batch, 224)
        model = build_model(cfg).train()
        told, measured = forecast(cfg, model), benchmark.of_allocator(cfg, model)
        assert told == pytest.approx(measured, rel=0.1), method
