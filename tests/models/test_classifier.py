"""The classifier freezes, trains and saves the right things."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from backbones import BACKBONES, CONFIGS, NECKS, WIDTH
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from mmpretrain.structures import DataSample
from quantised import Int8, quantise

from gleam_mm.arguments import ArgumentError
from gleam_mm.checkpoint import CheckpointError, fingerprint
from gleam_mm.checkpoint.identity import unpack
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import MODELS


def samples(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def step(model, images):
    losses = model.loss(images, samples([1, 2]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses['loss'].backward()
    optimizer.step()
    return losses['loss'].item()


def test_only_method_and_head_are_trained(make_classifier, images):
    model = make_classifier()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name in dict(model.named_parameters()) if 'backbone' not in name}
    before = copy.deepcopy(dict(model.named_parameters()))
    for _ in range(3):
        step(model, images)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == trained


def test_full_tuning_trains_everything(make_classifier):
    assert all(p.requires_grad for p in make_classifier('FullTuning').parameters())


@pytest.mark.parametrize('method', ['LoRA', 'BitFit', 'FullTuning'])
def test_statistics_of_a_frozen_backbone_stay(method):
    def make():
        return MODELS.build(
            dict(
                type='PETLClassifier',
                backbone=dict(
                    type='PooledTIMMBackbone',
                    model_name='levit_128s',
                    img_size=(64, 96),
                    depth=(1, 1, 1),
                ),
                petl=dict(type=method),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=384),
                allow_random_backbone=True,
            )
        )

    model, images = make().train(), torch.randn(2, 3, 64, 96)
    before = copy.deepcopy(dict(model.backbone.named_buffers()))
    step(model, images)
    moved = [n for n, b in model.backbone.named_buffers() if not b.equal(before[n])]
    assert bool(moved) == (method == 'FullTuning')
    again = make()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images)[-1], model.eval()(images)[-1])


def test_drop_path_of_a_frozen_backbone_follows_the_config(images):
    model = MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=dict(
                type='VisionTransformer',
                arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=128),
                img_size=32,
                patch_size=8,
                drop_path_rate=0.9,
            ),
            petl=dict(type='LinearProbe'),
        )
    )
    model.train()
    assert not torch.equal(model(images)[0], model(images)[0])
    model.eval()
    assert torch.equal(model(images)[0], model(images)[0])


@pytest.mark.parametrize('petl', ['GLEAM', 'LoRA', 'SLoRA', 'FacT', 'LinearProbe', 'FullTuning'])
def test_state_dict_holds_what_is_trained_and_a_fingerprint(petl, make_classifier):
    model = make_classifier(petl)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert model.state_dict().keys() == trained | {'_extra_state'}
    assert get_state_dict(model).keys() == trained | {'_extra_state'}
    told, description = unpack(model.state_dict()['_extra_state'])
    assert told == model.backbone_fingerprint()
    assert description['method']['type'] == petl


def test_a_trained_parameter_that_stands_at_two_places_is_in_the_state_dict(images):
    def build():
        backbone = MODELS.build(CONFIGS['vit'])
        backbone.layers[1].attn.qkv.bias = backbone.layers[0].attn.qkv.bias
        head = dict(type='LinearClsHead', in_channels=WIDTH, num_classes=10)
        return PETLClassifier(backbone=backbone, head=head, petl=dict(type='BitFit'))

    torch.manual_seed(0)
    model = build()
    other = copy.deepcopy(model)
    step(model, images)
    assert not torch.equal(model.eval()(images), other.eval()(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images), other(images))


@pytest.mark.parametrize('load', [load_state_dict, lambda m, state: m.load_state_dict(state)])
def test_round_trip(load, make_classifier, images):
    model, other = make_classifier(), make_classifier()
    for _ in range(2):
        step(model, images)
    assert not torch.equal(model.eval()(images), other.eval()(images))
    load(other, model.state_dict())
    assert torch.equal(model.eval()(images), other.eval()(images))


@pytest.mark.parametrize('petl', ['GLEAM', 'LoRA'])
def test_a_quantised_backbone_is_trained_saved_and_loaded(petl, make_classifier, images, tmp_path):
    model, other = make_classifier(petl), make_classifier(petl)
    for classifier in (model, other):
        quantise(classifier.backbone)
    assert step(model, images) != step(model, images)
    torch.save(model.state_dict(), tmp_path / 'x.pth')
    other.load_state_dict(torch.load(tmp_path / 'x.pth'))
    assert isinstance(other.backbone.layers[0].attn.qkv.weight, Int8)
    assert torch.equal(model.eval()(images), other.eval()(images))
    with pytest.raises(CheckpointError, match='was trained on a backbone with the fingerprint'):
        make_classifier(petl).load_state_dict(torch.load(tmp_path / 'x.pth'))  # not quantised


def test_another_backbone_is_refused_with_both_fingerprints(make_classifier):
    model, other = make_classifier(seed=0), make_classifier(seed=1)
    with pytest.raises(RuntimeError, match='was trained on a backbone') as error:
        load_state_dict(other, model.state_dict())
    assert model.backbone_fingerprint() in str(error.value)
    assert other.backbone_fingerprint() in str(error.value)


def test_fingerprint_follows_the_weights(make_classifier):
    model = make_classifier()
    before = model.backbone_fingerprint()
    with torch.no_grad():
        model.head.fc.weight.add_(1)
    assert model.backbone_fingerprint() == before
    with torch.no_grad():
        model.backbone.ln1.weight[0] += 1e-6
    assert model.backbone_fingerprint() != before


@pytest.mark.parametrize(
    'change',
    [
        lambda model: model.bfloat16(),
        lambda model: model.bfloat16().float(),
        lambda model: model.backbone.half(),
        lambda model: model.backbone.load_state_dict(
            {name: value + 1 for name, value in model.backbone.state_dict().items()}, assign=True
        ),
    ],
)
def test_fingerprint_follows_weights_that_were_replaced(change, make_classifier):
    model = make_classifier()
    model.backbone_fingerprint()
    change(model)
    expected = fingerprint(model.backbone.state_dict())
    for same in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same.backbone_fingerprint() == expected
    state = model.state_dict()
    model.load_state_dict(state)


@pytest.mark.parametrize('dtype', [torch.int8, torch.complex64, torch.bool])
def test_numbers_of_another_kind_are_refused(dtype, make_classifier):
    model = make_classifier()
    state = model.state_dict()
    state['head.fc.bias'] = state['head.fc.bias'].to(dtype)
    with pytest.raises(CheckpointError, match=rf'head\.fc\.bias holds {dtype} in the checkpoint'):
        model.load_state_dict(state)


def test_half_precision_is_taken(make_classifier):
    model = make_classifier()
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    assert model.head.fc.bias.dtype == torch.float32


def test_frozen_weights_in_a_file_change_nothing(make_classifier, images):
    model = make_classifier().eval()
    before = model(images)
    extra = {'backbone.ln1.weight': torch.zeros_like(model.backbone.ln1.weight)}
    model.load_state_dict({**model.state_dict(), **extra})
    assert torch.equal(model(images), before)


def test_wrong_keys_and_shapes_are_refused(make_classifier):
    model = make_classifier()
    state = model.state_dict()
    with pytest.raises(RuntimeError, match=r"model\.petl\.type is 'GLEAM' in .* but 'LoRA' in the"):
        load_state_dict(make_classifier('LoRA'), state)
    old = {**state, '_extra_state': state['_extra_state'][:32]}  # of release 0.1.0
    with pytest.raises(RuntimeError, match=r'Missing: .*petl.local.* Unexpected: petl.local'):
        load_state_dict(make_classifier('LoRA'), old)
    with pytest.raises(RuntimeError, match=r'head.fc.weight has the shape \(10, 32\) .* classes'):
        load_state_dict(make_classifier(num_classes=7), state)
    with pytest.raises(RuntimeError, match='no checkpoint of a PETLClassifier'):
        load_state_dict(model, {'head.fc.weight': torch.zeros(10, 32)})


@pytest.mark.parametrize('copier', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_independent(copier, make_classifier, images):
    model = make_classifier()
    step(model, images)
    before = model.eval()(images)
    twin = copier(model).train()
    step(twin, images)
    assert torch.equal(model.eval()(images), before)
    assert not torch.equal(twin.eval()(images), before)


def test_ema_averages_the_adapter(make_classifier, images):
    model = make_classifier()
    ema = ExponentialMovingAverage(model, momentum=0.5)
    start = model.head.fc.weight.clone()
    ema.update_parameters(model)  # the first update copies
    step(model, images)
    ema.update_parameters(model)
    expected = (start + model.head.fc.weight) / 2
    torch.testing.assert_close(ema.module.head.fc.weight, expected)
    saved = ema.state_dict()
    assert not any('backbone' in key for key in saved)
    other = ExponentialMovingAverage(make_classifier(), momentum=0.5)
    other.load_state_dict(saved)
    assert torch.equal(other.module.eval()(images), ema.module.eval()(images))


def test_unpooled_features_are_refused():
    model = MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=dict(
                type='TIMMBackbone',
                model_name='vit_tiny_patch16_224',
                img_size=32,
                patch_size=8,
                embed_dim=32,
                depth=1,
                num_heads=2,
            ),
            head=dict(type='LinearClsHead', in_channels=32, num_classes=3),
            petl=dict(type='GLEAM', rank=2),
        )
    )
    with pytest.raises(
        ValueError, match=r"shape \(2, 17, 32\) .* model\.neck={'type': 'TokenPool'"
    ):
        model(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize('mode', ['cls', 'mean'])
def test_token_pool(mode):
    pool = MODELS.build(dict(type='TokenPool', mode=mode))
    tokens = torch.randn(2, 17, 8)
    expected = tokens[:, 0] if mode == 'cls' else tokens.mean(1)
    assert torch.equal(pool((tokens,))[0], expected)
    grid = torch.randn(2, 4, 5, 8)
    expected = grid[:, 0, 0] if mode == 'cls' else grid.mean((1, 2))
    torch.testing.assert_close(pool((grid,))[0], expected)


@pytest.mark.parametrize('switch', ['allow_random_backbone', 'probe', 'recompute'])
def test_a_word_is_no_switch(switch, make_classifier):
    config = dict(
        backbone=make_classifier().backbone,
        head=dict(type='LinearClsHead', in_channels=32, num_classes=3),
        petl=dict(type='LinearProbe'),
    )
    with pytest.raises(ArgumentError, match=f"PETLClassifier: {switch}='no': choose True or False"):
        MODELS.build({'type': 'PETLClassifier', **config, switch: 'no'})


def test_bad_arguments_are_named(make_classifier):
    with pytest.raises(ValueError, match='num_classes is None'):
        make_classifier(num_classes=None)
    with pytest.raises(ValueError, match="type='LinearClsHead' is no PETL method, such"):
        MODELS.build(
            dict(
                type='PETLClassifier',
                backbone=make_classifier().backbone,
                petl=dict(type='LinearClsHead', in_channels=2, num_classes=3),
            )
        )
    with pytest.raises(ValueError, match="mode='max'"):
        MODELS.build(dict(type='TokenPool', mode='max'))


@pytest.mark.parametrize('scope', [None, 'mmpretrain'])
def test_built_outside_of_its_scope(images, scope, monkeypatch):
    """From Python without a config, and by MMPretrain's tools: the parts are found all the same."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    with DefaultScope.overwrite_default_scope(scope):
        model = PETLClassifier(
            backbone=copy.deepcopy(CONFIGS['timm-vit']),
            neck=dict(type='TokenPool', mode='cls'),
            head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=3),
            petl=[dict(type='LoRA'), dict(type='SSF')],
        )
    assert model(images).shape == (2, 3)


def test_head_of_another_width_is_named():
    config = dict(type='PETLClassifier', backbone=CONFIGS['vit'], petl=dict(type='LoRA'))
    config['head'] = dict(type='LinearClsHead', in_channels=5, num_classes=3)
    with pytest.raises(ValueError, match=r'model.head.in_channels=5: the backbone gives 32'):
        MODELS.build(copy.deepcopy(config))


@pytest.mark.parametrize(
    ('head', 'key'),
    [
        (dict(type='LinearClsHead', num_classes=1), 'num_classes'),
        (dict(type='CosineClsHead', num_classes=1), 'num_classes'),
        (
            dict(
                type='MultiTaskHead',
                task_heads=dict(kind=dict(type='LinearClsHead', num_classes=1)),
            ),
            'task_heads.kind.num_classes',
        ),
    ],
)
def test_one_class_is_nothing_to_tell(head, key):
    """Its loss would be 0 from the first step on, and its accuracy 100 %."""
    head = {**head, 'in_channels': WIDTH}
    config = dict(type='PETLClassifier', backbone=CONFIGS['vit'], petl=dict(type='LoRA'), head=head)
    with pytest.raises(
        ValueError, match=rf"^model.head.{key}=1: .* two classes .*'RegressionHead'"
    ):
        MODELS.build(copy.deepcopy(config))


@pytest.mark.parametrize('kind', ['RegressionHead', 'MultiLabelLinearClsHead'])
def test_heads_with_a_loss_of_each_output_may_have_one(kind):
    head = dict(type=kind, in_channels=WIDTH, num_classes=1)
    config = dict(type='PETLClassifier', backbone=CONFIGS['vit'], petl=dict(type='LoRA'), head=head)
    assert MODELS.build(copy.deepcopy(config)).head.num_classes == 1


def test_initialising_the_model_leaves_the_weights_that_were_loaded(tmp_path):
    """MMEngine's runner does it after the model was built; a ViT would draw its positions anew."""
    torch.manual_seed(1)
    source = BACKBONES['vit']().state_dict()
    torch.save(source, tmp_path / 'vit.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'vit.pth'))
    model = MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=dict(CONFIGS['vit'], init_cfg=pretrained),
            petl=dict(type='LoRA'),
        )
    )
    model.init_weights()
    state = model.backbone.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.items())


@pytest.mark.parametrize('petl', ['FullTuning', 'BitFit'])
@pytest.mark.parametrize('kind, stages, block', [('vit', 1, 'layers.'), ('swin', 0, 'stages.')])
def test_frozen_stages_are_frozen_whatever_trains_the_backbone(petl, kind, stages, block):
    model = MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=dict(copy.deepcopy(CONFIGS[kind]), frozen_stages=stages),
            neck=NECKS[kind],
            head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=2),
            petl=dict(type=petl),
            allow_random_backbone=True,
        )
    )
    for mode in (True, False, True):  # Swin freezes again whenever it goes over to training
        model.train(mode)
        learns = {
            name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad
        }
        assert not [name for name in learns if name.startswith(('patch_embed', f'{block}0.'))]
        assert [name for name in learns if name.startswith(f'{block}1.')]
    assert {f'backbone.{name}' for name in learns} == dict(model.petl.trainable_parameters()).keys()
    assert model.backbone.training
