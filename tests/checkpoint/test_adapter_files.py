import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from state_dicts import assert_equal
from torch import nn

from gleam_mm.checkpoint import CheckpointError, load_adapter, read_adapter, save_adapter, schema


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
        'schema': schema.VERSION,
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
    assert read_adapter(path)[1] == {'epoch': 1, 'schema': schema.VERSION}
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


# Damage


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_flipped_bit_is_told_or_changes_nothing(weights, tmp_path):
    path = tmp_path / 'x.safetensors'
    save_adapter(path, weights, {'method': {'type': 'LoRA', 'alpha': 8}, 'epoch': 3})
    data, (tensors, metadata) = path.read_bytes(), read_adapter(path)
    told = 0
    for bit in range(0, 8 * len(data), 3):
        path.write_bytes(flipped(data, bit))
        try:
            read, document = read_adapter(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            told += 1
        else:
            assert_equal(read, tensors)
            assert document == metadata
    size = sum(value.numel() * value.element_size() for value in weights.values())
    assert told >= 8 * size // 3  # each in the tensors, and most of those in the header


def test_a_second_half_of_zeros_is_told(tmp_path):
    path = tmp_path / 'x.safetensors'
    save_adapter(path, {'a': torch.ones(1000)}, {})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(CheckpointError, match=r'x\.safetensors: damaged: .* its SHA-256'):
        read_adapter(path)


def test_the_same_content_is_the_same_file(weights, tmp_path):
    """Whatever the order of the keys, in every process."""
    metadata = {'epoch': 1, 'method': {'type': 'LoRA', 'rank': 2}, 'sites': {'qkv', 'proj', 'fc1'}}
    script = f"""
import torch
from gleam_mm.checkpoint import save_adapter
weights = torch.load({str(tmp_path / 'weights.pth')!r})
save_adapter({str(tmp_path / 'b.safetensors')!r}, dict(reversed(weights.items())),
    dict(reversed({metadata!r}.items())))
"""
    torch.save(weights, tmp_path / 'weights.pth')
    save_adapter(tmp_path / 'a.safetensors', weights, metadata)
    subprocess.run([sys.executable, '-c', script], check=True)
    ours, theirs = (tmp_path / f'{name}.safetensors' for name in 'ab')
    assert ours.read_bytes() == theirs.read_bytes()


def test_methods_by_name_keep_their_order(weights, tmp_path):
    methods = {'z': {'type': 'SSF'}, 'a': {'type': 'LoRA'}}
    path = tmp_path / 'x.safetensors'
    save_adapter(path, weights, {'method': {'type': 'Compose', 'methods': methods}})
    assert list(read_adapter(path)[1]['method']['methods']) == ['z', 'a']


@pytest.mark.filterwarnings('error')
def test_a_file_that_has_sorted_methods_says_so(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, 'VERSION', 2)
    path, methods = tmp_path / 'x.safetensors', {'a': {'type': 'LoRA'}, 'z': {'type': 'SSF'}}
    save_adapter(path, weights, {'method': {'type': 'Compose', 'methods': methods}})
    with pytest.warns(UserWarning, match=r'x\.safetensors: written by .* They act as a, z: if'):
        read_adapter(path)
    within = {'x': {'type': 'Compose', 'methods': methods}}
    for nested in (within, [within['x'], {'type': 'SSF'}], {**within, 'y': {'type': 'SSF'}}):
        save_adapter(path, weights, {'method': {'type': 'Compose', 'methods': nested}})
        with pytest.warns(UserWarning, match=r'They act as (x, y; )?(x\.)?a, (x\.)?z: if'):
            read_adapter(path)
    save_adapter(path, weights, {'method': {'type': 'LoRA'}})
    read_adapter(path)


# Metadata that are not what they should be


@pytest.mark.parametrize(
    'document',
    [
        *('[]', '3', '0', '"x"', 'null', 'true', '{', '[' * 100_000, '{"schema": "1"}'),
        *('{"metrics": []}', '{"metrics": {"val": 3}}', '{"metrics": {"val": {"top1": "<b>"}}}'),
        *('{"classes": "ab"}', '{"classes": [["a"]]}', '{"classes": {"a": 1}}'),
        *('{"method": "LoRA"}', '{"method": []}', '{"method": ["LoRA"]}', '{"backbone": [1]}'),
        *('{"neck": 3}', '{"head": "x"}', '{"data_preprocessor": []}'),
        *('{"backbone_fingerprint": "00"}', '{"backbone_fingerprint": 7}'),
        *('{"method": {"type": "LoRA", "rank": NaN}}', '{"head": {"a": [-Infinity]}}'),
        *('{"pipeline": [{"type": "Pad", "pad_val": Infinity}]}', '{"model": null}'),
        *('{"epoch": -1}', '{"iter": 1.5}', '{"epoch": true}', '{"versions": {"torch": 2}}'),
    ],
)
def test_metadata_of_another_shape_are_one_line(document, weights, tmp_path):
    path = tmp_path / 'x.safetensors'
    safetensors.torch.save_file(weights, path, metadata={'gleam_mm': document})
    with pytest.raises(CheckpointError) as caught:
        read_adapter(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_metrics_may_be_no_numbers_and_configs_may_not(weights, tmp_path):
    path = tmp_path / 'x.safetensors'
    save_adapter(path, weights, {'metrics': {'val': {'loss': float('nan')}}})
    assert math.isnan(read_adapter(path)[1]['metrics']['val']['loss'])
    with pytest.raises(CheckpointError, match="its metadata's method is no JSON: Out of range"):
        save_adapter(path, weights, {'method': {'type': 'LoRA', 'alpha': float('inf')}})


def test_metadata_of_a_newer_release_ask_for_it(weights, tmp_path):
    path = tmp_path / 'x.safetensors'
    safetensors.torch.save_file(weights, path, metadata={'gleam_mm': '{"schema": 4}'})
    with pytest.raises(CheckpointError, match=r'have the schema 4.*update GLEAM-MM'):
        read_adapter(path)


def test_a_file_of_this_release_without_its_checksum_is_damaged(weights, tmp_path):
    path = tmp_path / 'x.safetensors'
    safetensors.torch.save_file(weights, path, metadata={'gleam_mm': '{"schema": 1}'})
    with pytest.raises(CheckpointError, match='damaged'):
        read_adapter(path)
