from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from state_dicts import assert_equal
from torch import nn

from gleam_mm.checkpoint import CheckpointError, load_adapter, read_adapter, save_adapter


def test_adapter_round_trip(weights, tmp_path):
    shared = torch.randn(2, 2)
    tensors = {**weights, 'half': torch.ones(2, dtype=torch.bfloat16), 'x': shared, 'y': shared.t()}
    metadata = {
        'method': {'type': 'GLEAM', 'scales': (1, 2)},
        'metrics': {
            'val': {'top1': np.float32(0.5), 'loss': torch.tensor(2.0), 'each': np.ones(2)}
        },
        'sites': {'qkv', 'proj'},
        'path': Path('a/b'),
        'class': nn.Linear,
        'classes': ['ü'],
    }
    save_adapter(tmp_path / 'x.safetensors', tensors, metadata)
    read, document = read_adapter(tmp_path / 'x.safetensors')
    assert_equal(read, tensors)
    assert document == {
        'method': {'type': 'GLEAM', 'scales': [1, 2]},
        'schema': 1,
        'metrics': {'val': {'top1': 0.5, 'loss': 2.0, 'each': [1.0, 1.0]}},
        'sites': ['proj', 'qkv'],
        'path': 'a/b',
        'class': 'torch.nn.modules.linear.Linear',
        'classes': ['ü'],
    }


def test_metadata_that_json_cannot_say(weights, tmp_path):
    with pytest.raises(TypeError, match='metadata of an adapter cannot hold'):
        save_adapter(tmp_path / 'x.safetensors', weights, {'model': object()})
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_adapter(weights, tmp_path, monkeypatch):
    path = tmp_path / 'x.safetensors'
    save_adapter(path, weights, {'epoch': 1})

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match='No space'):
        save_adapter(path, weights, {'epoch': 2})
    assert read_adapter(path)[1] == {'epoch': 1, 'schema': 1}
    assert list(tmp_path.iterdir()) == [path]


def test_other_safetensors_are_no_adapters(weights, tmp_path):
    safetensors.torch.save_file(weights, tmp_path / 'x.safetensors')
    with pytest.raises(CheckpointError, match=r'x\.safetensors: no adapter of GLEAM-MM'):
        read_adapter(tmp_path / 'x.safetensors')


@pytest.fixture
def save(tmp_path):
    """Writes the adapter of a classifier and gives its path."""

    def write(model, **metadata):
        tensors = {k: v for k, v in model.state_dict().items() if k != '_extra_state'}
        metadata = {'backbone_fingerprint': model.backbone_fingerprint(), **metadata}
        save_adapter(tmp_path / 'adapter.safetensors', tensors, metadata)
        return tmp_path / 'adapter.safetensors'

    return write


@pytest.mark.parametrize('petl', ['GLEAM', 'LoRA', 'LinearProbe', 'FullTuning'])
def test_adapter_is_loaded_onto_the_same_backbone(petl, make_classifier, save, images):
    trained = make_classifier(petl).eval()
    for parameter in trained.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    path = save(trained, epoch=7)
    fresh = make_classifier(petl).eval()
    assert load_adapter(fresh, path)['epoch'] == 7
    torch.testing.assert_close(fresh(images), trained(images), rtol=0, atol=0)


def test_adapter_of_another_backbone_is_refused(make_classifier, save):
    trained, other = make_classifier(seed=0), make_classifier(seed=1)
    path = save(trained)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_adapter(other, path)
    for part in (str(path), trained.backbone_fingerprint(), other.backbone_fingerprint()):
        assert part in str(caught.value)
    assert_equal(other.state_dict(), before)


def test_adapter_of_another_method_is_refused(make_classifier, save):
    path = save(make_classifier('LoRA'))
    with pytest.raises(CheckpointError, match=r'adapter\.safetensors'):
        load_adapter(make_classifier('GLEAM'), path)


def test_adapter_of_another_number_of_classes_is_refused(make_classifier, save):
    path = save(make_classifier(num_classes=3))
    with pytest.raises(CheckpointError, match=r'head\.'):
        load_adapter(make_classifier(num_classes=4), path)
