import hashlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.models import VisionTransformer
from torch import nn

import gleam_mm
from gleam_mm.checkpoint import (
    CheckpointError,
    fingerprint,
    load_adapter,
    load_backbone,
    load_from_local,
    read_adapter,
    read_state_dict,
    resolve_path,
    save_adapter,
)


class Crafted:
    """Pickles as a call, as a crafted checkpoint does."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture
def weights():
    return {'a.weight': torch.randn(3, 2), 'a.bias': torch.randn(3), 'b': torch.tensor(1.5)}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


# Paths


def test_scheme_means_the_installed_package():
    path = resolve_path('gleam_mm://weights/vit-mini.safetensors')
    assert path == Path(gleam_mm.__file__).parent / 'weights/vit-mini.safetensors'


def test_home_directory(monkeypatch):
    monkeypatch.setenv('HOME', '/somewhere')
    assert resolve_path('~/x.pth') == Path('/somewhere/x.pth')


# Reading


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('zipped', [False, True])
def test_files_of_torch_save(weights, wrapped, zipped, tmp_path):
    content = {'state_dict': weights, 'meta': {}} if wrapped else weights
    torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    assert_equal(read_state_dict(tmp_path / 'x.pth'), weights)


def test_safetensors(weights, tmp_path):
    safetensors.torch.save_file(weights, tmp_path / 'x.safetensors')
    assert_equal(read_state_dict(str(tmp_path / 'x.safetensors')), weights)


def test_urls_go_to_mmengine(weights, tmp_path, monkeypatch):
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    torch.save(weights, tmp_path / 'hub/checkpoints/x.pth')  # as if downloaded before
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert_equal(read_state_dict('https://example.com/x.pth'), weights)


def damaged(path):
    """Writes one kind of unusable file after the other, and says what the message must have."""
    yield 'no such file', lambda: None
    yield 'a directory', path.mkdir
    path.rmdir()
    yield 'no checkpoint', lambda: path.write_bytes(b'')
    yield 'no checkpoint', lambda: path.write_text('<html>Not found</html>')
    whole = {'a': torch.ones(1000)}
    for zipped in (True, False):
        torch.save(whole, path, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        for size in (len(data) // 2, 50):
            yield 'damaged or cut short', lambda size=size, data=data: path.write_bytes(data[:size])
    path.unlink()

    def archive():
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('readme', 'x')

    yield 'damaged or cut short', archive
    yield 'holds no weights, but a list', lambda: torch.save([1, 2], path)
    yield 'holds no weights, but an empty dict', lambda: torch.save({}, path)
    yield (
        'something else than weights: epoch',
        lambda: torch.save({'epoch': 1, 'a': torch.ones(1)}, path),
    )


def test_unusable_files_are_named_with_what_is_wrong(tmp_path):
    path = tmp_path / 'broken.pth'
    for message, write in damaged(path):
        write()
        with pytest.raises((CheckpointError, FileNotFoundError), match=message) as caught:
            read_state_dict(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize('keep', [0, 4, 60, -1])
def test_damaged_safetensors(weights, keep, tmp_path):
    path = tmp_path / 'x.safetensors'
    path.write_bytes(safetensors.torch.save(weights)[:keep])
    for read in (read_state_dict, read_adapter):
        with pytest.raises(CheckpointError, match=r'x\.safetensors: damaged, cut short'):
            read(path)


@pytest.mark.parametrize('read', [read_state_dict, load_from_local])
@pytest.mark.parametrize('kind', ['zip', 'old', 'pickle'])
def test_code_in_a_pickle_is_refused(kind, read, tmp_path):
    path, marker = tmp_path / 'crafted.pth', tmp_path / 'ran'
    content = {'state_dict': {'a': Crafted(Path.touch, marker)}}
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
    with pytest.raises(CheckpointError, match=r'crafted\.pth: refused.*Only safe loading is done'):
        read(str(path))
    assert not marker.exists()


def test_environment_cannot_switch_safe_loading_off(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    torch.save(Crafted(Path.touch, tmp_path / 'ran'), tmp_path / 'crafted.pth')
    with pytest.raises(CheckpointError, match='refused'):
        load_from_local(str(tmp_path / 'crafted.pth'))
    assert not (tmp_path / 'ran').exists()


def test_mmengine_reads_safetensors(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    safetensors.torch.save_file(source.state_dict(), tmp_path / 'x.safetensors')
    load_checkpoint(target, str(tmp_path / 'x.safetensors'), strict=True)
    assert_equal(target.state_dict(), source.state_dict())


# Backbones


def make_vit(img_size=32):
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    return VisionTransformer(arch, img_size=img_size, patch_size=8)


@pytest.mark.parametrize('prefix', ['backbone.', 'backbone', ''])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_backbone_is_loaded_in_its_own_type(prefix, dtype, tmp_path):
    source, target = make_vit(), make_vit()
    stored = {name: value.to(dtype) for name, value in source.state_dict().items()}
    if prefix:
        stored = {f'backbone.{name}': value for name, value in stored.items()}
        stored['head.fc.weight'] = torch.ones(2)
    safetensors.torch.save_file(stored, tmp_path / 'vit.safetensors')
    load_backbone(target, tmp_path / 'vit.safetensors', prefix)
    expected = {name: value.to(dtype).float() for name, value in source.state_dict().items()}
    assert_equal(target.state_dict(), expected)


def test_position_embeddings_are_resized(tmp_path):
    source, target = make_vit(32), make_vit(64)
    torch.save(source.state_dict(), tmp_path / 'vit.pth')
    load_backbone(target, tmp_path / 'vit.pth')
    assert target.pos_embed.shape == (1, 65, 16)
    assert torch.equal(target.pos_embed[:, 0], source.pos_embed[:, 0])
    assert torch.equal(target.ln1.weight, source.ln1.weight)


@pytest.mark.parametrize(
    'change, prefix, message',
    [
        (lambda w: w.pop('ln1.weight'), '', r'Missing in the file: ln1\.weight\.'),
        (lambda w: w.update(extra=torch.ones(1)), '', r'Not in the backbone: extra\.'),
        (lambda w: w.update({'ln1.weight': torch.ones(3)}), '', r'does not fit .*ln1\.weight'),
        (lambda w: None, 'model.', r"no key begins with 'model\.'"),
    ],
)
def test_backbone_is_loaded_strictly(change, prefix, message, tmp_path):
    state = make_vit().state_dict()
    change(state)
    torch.save(state, tmp_path / 'vit.pth')
    with pytest.raises(CheckpointError, match=message) as caught:
        load_backbone(make_vit(), tmp_path / 'vit.pth', prefix)
    assert str(tmp_path / 'vit.pth') in str(caught.value)


def test_forgotten_prefix_is_suggested(tmp_path):
    state = {f'backbone.{name}': value for name, value in make_vit().state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'vit.pth')
    with pytest.raises(CheckpointError, match=r"Did you mean prefix='backbone\.'\?"):
        load_backbone(make_vit(), tmp_path / 'vit.pth')


def test_missing_pretrained_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'vit\.pth'):
        load_backbone(make_vit(), tmp_path / 'vit.pth')


# Fingerprints


def test_fingerprint_is_the_documented_hash():
    tensor = torch.tensor([[1.0, 2.0]])
    header = b'w torch.float32 (1, 2)\n'
    expected = hashlib.sha256(header + np.array([1.0, 2.0], np.float32).tobytes()).hexdigest()
    assert fingerprint({'w': tensor}) == expected


def test_fingerprint_ignores_order_and_layout(weights):
    assert fingerprint(dict(reversed(weights.items()))) == fingerprint(weights)
    strided = {**weights, 'a.weight': weights['a.weight'].t().contiguous().t()}
    assert fingerprint(strided) == fingerprint(weights)


@pytest.mark.parametrize(
    'change',
    [
        lambda w: {**w, 'b': w['b'] + 1e-6},
        lambda w: {**w, 'b': w['b'].bfloat16()},
        lambda w: {**w, 'b': w['b'].reshape(1)},
        lambda w: {('c' if k == 'b' else k): v for k, v in w.items()},
        lambda w: {k: v for k, v in w.items() if k != 'b'},
    ],
)
def test_fingerprint_tells_weights_apart(change, weights):
    assert fingerprint(change(weights)) != fingerprint(weights)


# Adapters


def test_adapter_round_trip(weights, tmp_path):
    shared = torch.randn(2, 2)
    tensors = {**weights, 'half': torch.ones(2, dtype=torch.bfloat16), 'x': shared, 'y': shared.t()}
    metadata = {
        'method': {'type': 'GLEAM', 'scales': (1, 2)},
        'metrics': {'top1': np.float32(0.5), 'loss': torch.tensor(2.0)},
        'path': Path('a/b'),
        'class': nn.Linear,
        'classes': ['ü'],
    }
    save_adapter(tmp_path / 'x.safetensors', tensors, metadata)
    read, document = read_adapter(tmp_path / 'x.safetensors')
    assert_equal(read, tensors)
    assert document == {
        'method': {'type': 'GLEAM', 'scales': [1, 2]},
        'metrics': {'top1': 0.5, 'loss': 2.0},
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
    assert read_adapter(path)[1] == {'epoch': 1}
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
