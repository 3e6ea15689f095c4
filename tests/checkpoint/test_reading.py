import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmengine.runner import CheckpointLoader, load_checkpoint
from state_dicts import assert_equal
from torch import nn

import gleam_mm
from gleam_mm.checkpoint import (
    CheckpointError,
    classes_of,
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


def test_code_in_a_pickle_from_elsewhere_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    torch.save({'a': Crafted(print, 'run')}, tmp_path / 'hub/checkpoints/x.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r'^https://example\.com/x\.pth: refused, for it'
    ) as e:
        read_state_dict('https://example.com/x.pth')
    assert 'weights_only' not in str(e.value)


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


@pytest.mark.parametrize('name', ['epoch_1.pth', 'x.safetensors'])
def test_a_checkpoint_is_told_from_a_damaged_adapter(name, weights, tmp_path):
    torch.save({'state_dict': weights}, tmp_path / name)
    with pytest.raises(CheckpointError, match=rf'{name}: a checkpoint .* give the adapter\.safe'):
        read_adapter(tmp_path / name)


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


# Files that claim what they do not hold


def test_a_flipped_bit_in_a_checkpoint_is_told_or_changes_nothing(tmp_path):
    """torch.load itself does not look at the checksums in its files."""
    path = tmp_path / 'x.pth'
    content = {'state_dict': {'a': torch.arange(40.0)}, 'meta': {'epoch': 3}}
    torch.save(content, path)
    data, told = path.read_bytes(), 0
    for bit in range(0, 8 * len(data), 11):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            read = load_from_local(str(path))
        except CheckpointError as error:
            told += 1
            assert str(path) in str(error)
        else:
            assert_equal(read['state_dict'], content['state_dict'])
            assert read['meta'] == content['meta']
    assert told > 40 * 4 * 8 // 11


def test_a_stride_of_0_is_no_memory(tmp_path):
    path = tmp_path / 'x.pth'
    many = torch.zeros(1).as_strided((2**45,), (0,))
    optimizer = {'state': {0: {'exp_avg': many}}, 'param_groups': []}
    torch.save({'state_dict': {'a': torch.ones(2)}, 'meta': {}, 'optimizer': optimizer}, path)
    told = r'x\.pth: optimizer\.state\.0\.exp_avg claims 35,184,372,088,832 numbers and holds 1;'
    with pytest.raises(CheckpointError, match=told):
        load_from_local(str(path))
    torch.save({'a': many}, path)
    with pytest.raises(CheckpointError, match=r'x\.pth: a claims'):
        read_state_dict(path)


def test_views_of_larger_tensors_are_read(tmp_path):
    whole = torch.arange(6.0)
    torch.save({'a': whole[1:3], 'b': whole.view(2, 3).t()}, tmp_path / 'x.pth')
    assert_equal(read_state_dict(tmp_path / 'x.pth'), {'a': whole[1:3], 'b': whole.view(2, 3).t()})


def test_a_compressed_checkpoint_is_refused(tmp_path):
    """A few kilobytes could become any number of gigabytes."""
    torch.save({'a': torch.zeros(100_000)}, tmp_path / 'x.pth')
    with (
        zipfile.ZipFile(tmp_path / 'x.pth') as source,
        zipfile.ZipFile(tmp_path / 'y.pth', 'w', zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match=r'y\.pth: damaged .*is compressed, as by no torch'):
        read_state_dict(tmp_path / 'y.pth')


@pytest.mark.parametrize('state_dict', [[1], (), 'x', {'a': 1}, {}, {'a': {'b': torch.ones(1)}}])
def test_a_state_dict_of_another_kind_is_told(state_dict, tmp_path):
    torch.save({'state_dict': state_dict, 'meta': {}}, tmp_path / 'x.pth')
    for read in (load_from_local, read_state_dict):
        with pytest.raises(CheckpointError, match=r'x\.pth: holds (no weights|something else)'):
            read(str(tmp_path / 'x.pth'))


def test_meta_of_another_kind_is_told(tmp_path):
    torch.save({'state_dict': {'a': torch.ones(1)}, 'meta': [1]}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r"x\.pth: its 'meta' is a list, not a mapping"):
        load_from_local(str(tmp_path / 'x.pth'))


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        (dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), ('a', 'b')),
        (dict(meta=dict(dataset_meta=dict(classes=[0, 1]))), ('0', '1')),
        (dict(meta=dict(dataset_meta=dict(classes=()))), None),
        (dict(meta=dict(dataset_meta=None)), None),
        (dict(meta={}), None),
        (dict(meta=[]), None),
        ({}, None),
        ([], None),
    ],
)
def test_the_classes_that_a_checkpoint_tells(content, told, tmp_path, monkeypatch):
    torch.save(content, tmp_path / 'a.pth')
    assert classes_of(tmp_path / 'a.pth') == told
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', lambda *args, **kwargs: content)
    assert classes_of('https://example.org/a.pth') == told


def test_the_classes_that_an_adapter_tells(tmp_path):
    file, weights = tmp_path / 'a.safetensors', {'x': torch.ones(1)}
    for classes, told in ((['a', 'b'], ('a', 'b')), ([0], ('0',)), ([], None), (None, None)):
        save_adapter(file, weights, {'classes': classes})
        assert classes_of(file) == told
    safetensors.torch.save_file(weights, file)
    assert classes_of(file) is None
