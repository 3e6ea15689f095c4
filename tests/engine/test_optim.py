"""The optimizer gets the trained parameters, each once, and no others."""

import pytest
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper

from gleam_mm.engine import PETLRunner


@pytest.mark.parametrize('paramwise_cfg', [None, dict(norm_decay_mult=0.0, bias_lr_mult=2.0)])
@pytest.mark.parametrize('petl', ['GLEAM', 'LoRA', 'LinearProbe', 'FullTuning'])
def test_frozen_parameters_never_reach_the_optimizer(petl, paramwise_cfg, make_classifier):
    model = make_classifier(petl)
    config = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1))
    if paramwise_cfg:
        config['paramwise_cfg'] = paramwise_cfg
    wrapper = build_optim_wrapper(model, config)
    given = [id(p) for group in wrapper.optimizer.param_groups for p in group['params']]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(given) == sorted(trained)
    if paramwise_cfg:
        rates = {
            id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']
        }
        assert rates[id(model.head.fc.bias)] == 2e-3


def test_nothing_to_train_is_an_error(make_classifier):
    model = make_classifier('LinearProbe')
    model.head.requires_grad_(False)
    with pytest.raises(ValueError, match='PETLClassifier has no trainable parameter'):
        build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1)))


def test_layer_wise_decay_of_mmpretrain_works(make_classifier):
    """Hooks leave the backbone's names alone, and layer decay goes by names."""
    model = make_classifier('FullTuning')
    config = dict(
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        constructor='LearningRateDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    wrapper = build_optim_wrapper(model, config)
    rates = {
        id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']
    }
    first, last = (model.backbone.layers[index].attn.qkv.weight for index in (0, 1))
    assert rates[id(model.head.fc.weight)] == 1.0
    assert (rates[id(last)], rates[id(first)]) == (0.5, 0.25)


@pytest.mark.parametrize(('batches', 'rate'), [(1, 0.05), (4, 0.2)])
def test_the_rate_is_scaled_by_the_images_of_a_step(batches, rate, make_classifier):
    """MMEngine's own scaling leaves accumulation out: four batches of 8 are a step of 32."""
    config = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=batches)
    wrapper = build_optim_wrapper(make_classifier('LinearProbe'), config)
    runner = PETLRunner.__new__(PETLRunner)
    runner._train_dataloader, runner._world_size = dict(batch_size=8), 1
    runner.param_schedulers, runner.logger = None, MMLogger.get_current_instance()
    runner.scale_lr(wrapper, dict(enable=True, base_batch_size=16))
    assert [group['lr'] for group in wrapper.optimizer.param_groups] == pytest.approx([rate])
