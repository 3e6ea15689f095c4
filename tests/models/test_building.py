"""Models from files: what the metadata of an adapter say is built, and what they ask for is not."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from backbones import CONFIGS, WIDTH
from conformance.cases import logits
from mmengine.config import Config
from torch import nn

from gleam_mm.checkpoint import CheckpointError, save_adapter
from gleam_mm.models import load_model
from gleam_mm.models.building import config_of
from gleam_mm.models.parts import checked_part
from gleam_mm.petl import PETLMethod
from gleam_mm.registry import MODELS


@pytest.fixture
def metadata(tmp_path):
    """What an adapter says of its model, whose frozen weights are in a file beside it."""
    torch.manual_seed(0)
    weights = tmp_path / 'backbone.pth'
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), weights)
    return {
        'method': {'type': 'LoRA', 'rank': 2},
        'backbone': {
            **copy.deepcopy(CONFIGS['vit']),
            'init_cfg': {'type': 'Pretrained', 'checkpoint': str(weights), 'prefix': ''},
        },
        'neck': None,
        'head': {
            'type': 'LinearClsHead',
            'in_channels': WIDTH,
            'num_classes': 3,
            'loss': {'type': 'LabelSmoothLoss', 'label_smooth_val': 0.1},
        },
        'data_preprocessor': {'mean': [127.5] * 3, 'std': [127.5] * 3},
    }


def config(metadata):
    parts = {key: metadata[key] for key in ('backbone', 'neck', 'head')}
    model = dict(type='PETLClassifier', petl=metadata['method'], **parts)
    preprocessor = metadata['data_preprocessor']
    return Config(dict(default_scope='gleam_mm', model=model, data_preprocessor=preprocessor))


@pytest.fixture
def adapter(metadata, tmp_path):
    """Writes an adapter file with trained numbers; gives its path and the model's outputs."""

    def write():
        model = load_model(config(metadata))
        for _, parameter in model.petl.trainable_parameters():
            nn.init.normal_(parameter)
        tensors = {key: value for key, value in model.state_dict().items() if key[0] != '_'}
        described = {**metadata, 'backbone_fingerprint': model.backbone_fingerprint()}
        save_adapter(tmp_path / 'adapter.safetensors', tensors, described)
        return tmp_path / 'adapter.safetensors', model

    return write


def test_a_file_alone_is_a_model(adapter, images):
    path, model = adapter()
    loaded = load_model(checkpoint=path)
    assert not loaded.training
    assert torch.equal(logits(loaded, images), logits(model, images))
    assert loaded.data_preprocessor.mean.flatten().tolist() == [127.5] * 3


def test_a_config_with_a_file(adapter, metadata, images, tmp_path):
    path, model = adapter()
    cfg = config(metadata)
    cfg.model.head.num_classes = None  # the file tells
    before = cfg.pretty_text
    assert torch.equal(logits(load_model(cfg, path), images), logits(model, images))
    assert cfg.pretty_text == before
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'epoch_1.pth')
    loaded = load_model(cfg, tmp_path / 'epoch_1.pth')
    assert torch.equal(logits(loaded, images), logits(model, images))
    with pytest.raises(CheckpointError, match=r'epoch_1\.pth: model\.petl\.alpha is 8\.0 in the'):
        load_model(cfg, tmp_path / 'epoch_1.pth', {'model.petl.alpha': 9})
    with pytest.raises(CheckpointError, match='only an adapter file describes its model'):
        load_model(checkpoint=tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match='give a config, an adapter file, or both'):
        load_model()


def test_options_are_checked(adapter, metadata):
    path, _ = adapter()
    for cfg in (None, config(metadata)):
        with pytest.raises(ValueError, match=r"option 'modle\.petl\.rank': .* 'model'"):
            load_model(cfg, path, {'modle.petl.rank': 3})


def test_types_with_their_scope_or_module(adapter, metadata, images):
    """As configs with scopes, and the classes of new-style ones, are written."""
    metadata['backbone']['type'] = 'mmpretrain.VisionTransformer'
    path, model = adapter()
    metadata['method']['type'] = 'gleam_mm.petl.lora.LoRA'
    metadata['head']['loss']['type'] = 'mmpretrain.LabelSmoothLoss'
    tensors = {key: value for key, value in model.state_dict().items() if key[0] != '_'}
    described = {**metadata, 'backbone_fingerprint': model.backbone_fingerprint()}
    save_adapter(path, tensors, described)
    assert torch.equal(logits(load_model(checkpoint=path), images), logits(model, images))


def hostile(marker):
    """Changes of the metadata, each of which asks for something that no file may have."""
    call = {'type': 'subprocess.check_call', 'args': [['touch', marker]]}
    spread = {'type': 'os.system', 'command': f'touch {marker}'}
    for part in ('method', 'backbone', 'neck', 'head', 'data_preprocessor'):
        yield f'{part}-call', {part: call}
        yield f'{part}-spread', {part: spread}
        for name in ('os', 'this', 'no_such', 'builtins.eval', '', 'evil.LoRA', 7, None, ['LoRA']):
            yield f'{part}-type-{name}', {part: {'type': name}}
    yield 'methods', {'method': [{'type': 'LoRA'}, call]}
    nested = {
        'head.loss': call,
        'head.init_cfg': call,
        'head.init_cfg ': [{'type': 'Constant', 'layer': 'Linear'}, call],
        'backbone.norm_cfg': call,
        'backbone.patch_cfg': {'norm_cfg': [[call]]},
        'backbone.layer_cfgs': [{'act_cfg': call}],
        'data_preprocessor.batch_augments': {'augments': [call]},
        'method.rank': call,
    }
    for key, value in nested.items():
        yield f'nested-{key}', {key: value}
    yield 'scope', {'backbone._scope_': 'evil'}
    yield 'inner scope', {'head.loss._scope_': 'evil'}
    yield 'other kind', {'method': {'type': 'VisionTransformer'}}
    yield 'a classifier', {'backbone': {'type': 'ImageClassifier', 'backbone': call}}
    yield 'huggingface', {'backbone': {'type': 'HuggingFaceClassifier', 'model_name': 'x'}}
    yield 'placeholder', {'head': {'type': 'Blip2Caption'}}
    yield 'argument', {'method.no_such': 1}
    for address in (
        *('http://host/x.pth', 's3://bucket/x.pth', '//host/x.pth', '\\\\host\\x.pth'),
        *('gleam_mm://http://host/x.pth', '/etc/passwd', '/dev/zero', 3, None, ['x.pth']),
    ):
        yield f'weights-{address}', {'backbone.init_cfg.checkpoint': address}
    yield 'map_location', {'backbone.init_cfg.map_location': call}
    yield 'prefix', {'backbone.init_cfg.prefix': {'type': 'x'}}
    pretrained = {'type': 'Pretrained', 'checkpoint': 'other.pth'}
    yield 'head weights', {'head.init_cfg': pretrained}
    yield 'several weights', {'backbone.init_cfg': [pretrained]}
    yield 'scoped weights', {'head.init_cfg': {**pretrained, 'type': 'mmengine.Pretrained'}}
    timm = {'type': 'TIMMBackbone', 'model_name': 'vit_tiny_patch16_224'}
    for option in (
        *({'pretrained': 'x'}, {'checkpoint_path': 'x'}, {'pretrained_cfg': {'file': 'x'}}),
        *({'model_name': 'hf-hub:o/n'}, {'model_name': 'local-dir:.'}, {'cache_dir': 'x'}),
    ):
        yield f'timm-{option}', {'backbone': {**timm, **option}}
    peft = {'peft_type': 'LORA', 'r': 2}
    for option in (
        *({'megatron_core': 'evil', 'megatron_config': {}}, {'corda_config': {'cache_file': 'x'}}),
        {'init_lora_weights': '/x'},
    ):
        yield f'peft-{option}', {'method': {'type': 'HFPeft', 'config': {**peft, **option}}}
    yield 'subnet', {'method': {'type': 'GLoRA', 'subnet': 'subnet.json'}}
    for key in (
        *('method.rank', 'backbone.arch.embed_dims', 'backbone.arch.num_layers'),
        *('backbone.arch.feedforward_channels', 'backbone.img_size', 'backbone.patch_size'),
        *('backbone.in_channels', 'head.in_channels', 'head.loss.num_classes'),
        'data_preprocessor.pad_size_divisor',
    ):
        yield f'a billion-{key}', {key: 10**9}
        if key.partition('.')[0] in ('method', 'backbone'):
            yield f'a million-{key}', {key: 999_984}  # a multiple of patch and heads
    for method in (
        *({'type': 'GLEAM', 'num_experts': 10**6}, {'type': 'GLEAM', 'rank': 10**6}),
        *({'type': 'VPT', 'num_prompts': 10**6}, {'type': 'Convpass', 'bottleneck': 10**6}),
        {'type': 'HFPeft', 'config': {'peft_type': 'LORA', 'r': 10**6}},
    ):
        yield f'large-{method}', {'method': method}
    deep = []
    for _ in range(300):
        deep = [deep]
    yield 'deep', {'method.sites': deep}


HOSTILE = dict(hostile('ran'))


def change(metadata, changes):
    for key, value in changes.items():
        *path, last = key.strip().split('.')
        inner = metadata
        for name in path:
            inner = inner[name]
        inner[last] = value


def crafted(path, document, tensors=None):
    """An adapter file as somebody writes it who does not use our code; without a checksum."""
    tensors = tensors or {'head.fc.weight': torch.zeros(3, WIDTH)}
    safetensors.torch.save_file(tensors, path, metadata={'gleam_mm': document})


@pytest.mark.parametrize('name', ['KAdaptation', 'Kronecker', 'PrefixTuning', 'SCT'])
def test_a_number_of_weights_is_told_from_a_size(name):
    number = 10**9
    assert checked_part('method', {'type': 'LTSFT', 'number': number})['number'] == number
    with pytest.raises(CheckpointError, match=r'^method\.number is 1e\+09, and no model has'):
        checked_part('method', {'type': name, 'number': number})


@pytest.mark.parametrize('name', HOSTILE)
def test_metadata_cannot_ask_for_anything_else(name, metadata, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, 'check_call', lambda *args: Path('ran').touch())
    (tmp_path / 'evil').mkdir()
    for module in ('evil/__init__.py', 'evil/registry.py'):
        Path(module).write_text('import pathlib; pathlib.Path("ran").touch()', encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    change(metadata, HOSTILE[name])
    path = tmp_path / 'crafted.safetensors'
    crafted(path, json.dumps(metadata))
    modules = set(sys.modules)
    with pytest.raises(CheckpointError) as caught:
        load_model(checkpoint=path)
    message = str(caught.value)
    assert str(path) in message and '\n' not in message and len(message) < 600
    assert not Path('ran').exists()
    assert not {'evil', 'this', 'evil.registry'} & (set(sys.modules) - modules)


def test_a_method_of_the_users_own_takes_part_once_it_is_imported(metadata, tmp_path):
    metadata['method'] = {'type': 'MyOwnMethod'}
    crafted(tmp_path / 'a.safetensors', json.dumps(metadata))
    with pytest.raises(CheckpointError, match='a component of your own has to be imported first'):
        config_of(tmp_path / 'a.safetensors')

    class MyOwnMethod(PETLMethod):
        __module__ = 'of_the_users_own'

    MODELS.register_module(module=MyOwnMethod)
    try:
        assert config_of(tmp_path / 'a.safetensors').model.petl.type == 'MyOwnMethod'
    finally:
        MODELS.module_dict.pop('MyOwnMethod')


def test_a_file_without_a_part_needs_the_config(tmp_path):
    crafted(tmp_path / 'a.safetensors', '{}')
    with pytest.raises(CheckpointError, match='lack the method and the backbone and the head'):
        load_model(checkpoint=tmp_path / 'a.safetensors')


def test_the_tool_runs_nothing(metadata, tmp_path):
    """tools/analyze.py on a crafted file, which is how it was found."""
    marker = tmp_path / 'ran'
    change(metadata, dict(hostile(str(marker)))['backbone-call'])
    crafted(tmp_path / 'a.safetensors', json.dumps(metadata))
    tool = Path(__file__).parents[2] / 'tools' / 'analyze.py'
    done = subprocess.run(
        [
            *(sys.executable, str(tool), 'homogeneity', str(tmp_path / 'a.safetensors')),
            *('--data', 'vit-mini_lora_mini-digits', '--out', str(tmp_path / 'out')),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('analyze.py: error: ')
    assert 'its metadata are not built: backbone' in done.stderr
    assert done.stderr.count('\n') == 1
    assert not marker.exists()
