import pytest
import torch
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from torch import nn

from gleam_mm.engine import CPUAmpOptimWrapper, amp
from gleam_mm.registry import OPTIM_WRAPPERS


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')


def build(model, **options):
    config = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1), **options)
    return build_optim_wrapper(model, config)


@pytest.mark.parametrize(
    'options',
    [{}, dict(loss_scale='dynamic'), dict(loss_scale=512.0, dtype='bfloat16', use_fsdp=False)],
)
def test_configs_for_gpus_run_on_the_cpu(options):
    assert isinstance(build(nn.Linear(2, 2), **options), CPUAmpOptimWrapper)


def test_gpus_get_the_wrapper_of_mmengine(monkeypatch):
    monkeypatch.setattr(amp, 'get_device', lambda: 'cuda')
    made = []
    monkeypatch.setattr(amp, 'AmpOptimWrapper', lambda **options: made.append(options))
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    OPTIM_WRAPPERS.build(dict(type='AmpOptimWrapper', optimizer=optimizer, loss_scale='dynamic'))
    assert made == [dict(optimizer=optimizer, loss_scale='dynamic')]


@pytest.mark.parametrize('dtype', ['float16', torch.float16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match=r"optim_wrapper\.dtype=.*'bfloat16' only"):
        build(nn.Linear(2, 2), dtype=dtype)


def test_forward_runs_in_bfloat16_and_gradients_are_not_scaled():
    model = nn.Linear(4, 3)
    wrapper = build(model)
    x = torch.randn(2, 4)
    with wrapper.optim_context(model):
        y = model(x)
    assert y.dtype == torch.bfloat16
    assert model(x).dtype == torch.float32
    wrapper.backward(y.float().sum())
    assert model.weight.grad.dtype == torch.float32
    torch.testing.assert_close(model.weight.grad, x.sum(0).expand(3, 4), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('petl', ['GLEAM', 'LoRA', 'LinearProbe', 'FullTuning'])
def test_trains_a_classifier(petl, make_classifier, images):
    from mmpretrain.structures import DataSample

    model = make_classifier(petl)
    wrapper = build(model, clip_grad=dict(max_norm=1.0))
    data = {
        'inputs': images,
        'data_samples': [DataSample().set_gt_label(i) for i in range(len(images))],
    }
    losses = [model.train_step(data, wrapper)['loss'].item() for _ in range(20)]
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_state_of_a_gpu_run_is_resumed():
    def run():
        return build_optim_wrapper(
            nn.Linear(2, 2), dict(type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=0.1))
        )

    state = {**run().state_dict(), 'loss_scaler': {'scale': 65536.0}}
    resumed = run()
    resumed.load_state_dict(state)
    assert resumed.state_dict().keys() == run().state_dict().keys()


def test_what_mmengine_has_is_untouched():
    assert AmpOptimWrapper.__module__.startswith('mmengine')
