"""The optimizer gets the trained parameters, each once, and no others."""

import re

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper

from gleam_mm.config import recipes
from gleam_mm.engine import PETLRunner
from gleam_mm.sweep import configure

# Of a preset whose official code spares some numbers the decay: which of them, by name and value.
SPARED = {
    'ssf': lambda name, value: name.startswith('petl.'),
    'bitfit': lambda name, value: name.startswith('backbone.'),
    'noah': lambda name, value: value.ndim == 1,
}


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


def spared_by(preset, paramwise_cfg, make_classifier):
    """The trained parameters by name, and the names of those that have no decay."""
    model = make_classifier(**preset)
    config = Config(dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1)))
    config.merge_from_dict(paramwise_cfg)
    groups = build_optim_wrapper(model, config.to_dict()).optimizer.param_groups
    decay = {id(value): group['weight_decay'] for group in groups for value in group['params']}
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert {decay[id(value)] for value in trained.values()} == {0, 0.1}
    return trained, {name for name, value in trained.items() if decay[id(value)] == 0}


@pytest.mark.parametrize('method', SPARED)
def test_what_a_preset_says_of_decay_reaches_what_it_should(method, make_classifier):
    file = recipes.config_root() / '_base_' / 'methods' / f'{method}.py'
    preset = dict(Config.fromfile(file).method)
    preset['petl'] = preset.pop('type')
    (told,) = re.findall(r'`optim_wrapper\.(paramwise_cfg\S+)=0`', file.read_text())
    trained, found = spared_by(preset, {told: 0}, make_classifier)
    assert found == {name for name, value in trained.items() if SPARED[method](name, value)}
    assert {'head.fc.weight'} <= trained.keys() - found
    # Those with more axes than one are what a rule by axes would miss.
    shapes = [value.shape[1:] for name, value in trained.items() if name in found]
    assert ((1, 1) in shapes) == (method == 'ssf')
    if variant := configure.read_file('vtab')['variants'].get(method):
        swept = {key.removeprefix('optim_wrapper.'): value for key, value in variant.items()}
        assert spared_by(preset, swept, make_classifier)[1] == found


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
