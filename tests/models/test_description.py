"""Options that differ between a checkpoint and a model are told, and defaults are none."""

import pytest
import torch
from backbones import CONFIGS, WIDTH
from torch import nn

from gleam_mm.checkpoint import CheckpointError, load_adapter, save_adapter
from gleam_mm.registry import MODELS


def build(backbone=(), head=(), preprocessor=(), neck=None, petl_module=None, **petl):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='PETLClassifier',
            backbone={**CONFIGS['vit'], **dict(backbone)},
            neck=neck,
            head={**dict(type='LinearClsHead', in_channels=WIDTH, num_classes=3), **dict(head)},
            petl=petl_module or {'type': 'GLEAM', 'rank': 4, **petl},
            data_preprocessor={'mean': [127.5] * 3, 'std': [127.5] * 3, **dict(preprocessor)},
        )
    )


@pytest.mark.parametrize(
    ('options', 'key', 'theirs', 'ours'),
    [
        (dict(alpha=64), r'model\.petl\.alpha', '1.0', '64'),
        (dict(top_k=1), r'model\.petl\.top_k', '2', '1'),
        (dict(preprocessor=dict(mean=[0, 0, 0])), r'data_preprocessor\.mean', r'\[127', r'\[0, 0'),
        (dict(preprocessor=dict(to_rgb=True)), r'data_preprocessor\.to_rgb', 'False', 'True'),
        (dict(backbone=dict(out_type='raw')), r'model\.backbone\.out_type', "'cls", "'raw"),
        (dict(neck=dict(type='GlobalAveragePooling')), r'model\.neck', 'None', '{'),
    ],
)
def test_a_difference_is_named_with_both_values(options, key, theirs, ours):
    state, model = build().state_dict(), build(**options)
    told = f'{key} is {theirs}.* in the checkpoint but {ours}.* in the model'
    with pytest.raises(CheckpointError, match=told):
        model.load_state_dict(state)


def test_another_method_is_told_before_other_frozen_weights():
    state = build(petl_module=dict(type='BitFit')).state_dict()  # which trains biases
    with pytest.raises(
        CheckpointError, match=r"petl\.type is 'BitFit' in the checkpoint but 'LoRA'"
    ):
        build(petl_module=dict(type='LoRA', rank=2)).load_state_dict(state)


@pytest.mark.parametrize(
    'options',
    [
        dict(alpha=1, top_k=2, sites=('qkv', 'proj', 'fc1', 'fc2')),  # the defaults
        dict(backbone=dict(drop_path_rate=0.3, frozen_stages=1)),
        dict(head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1), topk=(1, 2))),
        dict(preprocessor=dict(num_classes=3, mean=(127.5, 127.5, 127.5), to_rgb=False)),
    ],
)
def test_what_outputs_do_not_depend_on_may_differ(options):
    build(**options).load_state_dict(build().state_dict())


def test_types_may_be_classes(tmp_path):
    """As in new-style configs, whose classes the metadata spell with their modules."""
    model = build()
    named = build(preprocessor=dict(type='ClsDataPreprocessor'), type=type(model.petl))
    model.load_state_dict(named.state_dict())
    named.load_state_dict(model.state_dict())


def test_a_method_given_as_a_module_makes_no_claim():
    state = build(alpha=3).state_dict()
    build(petl_module=MODELS.build(dict(type='GLEAM', rank=4))).load_state_dict(state)


def test_an_adapter_file_is_compared_too(tmp_path):
    model = build(alpha=8)
    tensors = {key: value for key, value in model.state_dict().items() if key != '_extra_state'}
    metadata = {
        'method': {'type': 'GLEAM', 'rank': 4, 'alpha': 8},
        'backbone_fingerprint': model.backbone_fingerprint(),
    }
    save_adapter(tmp_path / 'a.safetensors', tensors, metadata)
    load_adapter(build(alpha=8), tmp_path / 'a.safetensors')
    with pytest.raises(CheckpointError, match=r'a\.safetensors: model\.petl\.alpha is 8 in the'):
        load_adapter(build(), tmp_path / 'a.safetensors')


def test_what_no_file_could_hold_is_refused_at_once():
    with pytest.raises(TypeError, match='JSON has no word for it'):
        build(backbone=dict(norm_cfg=dict(type='LN', hook=object())))
    with pytest.raises(ValueError, match='choose a list of names'):
        build(sites={'qkv', 'proj'})  # which has no order


def test_a_damaged_description():
    model = build()
    state = model.state_dict()
    for tail in (b'{', b'[1]', b'[' * 100_000):
        state['_extra_state'] = torch.tensor([*bytes(32), *tail], dtype=torch.uint8)
        with pytest.raises(CheckpointError, match='_extra_state is damaged'):
            model.load_state_dict(dict(state))
    state['_extra_state'] = nn.Parameter(torch.zeros(32))
    with pytest.raises(CheckpointError, match='_extra_state holds no fingerprint'):
        model.load_state_dict(dict(state))
