import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmengine.runner import load_checkpoint
from state_dicts import assert_equal
from torch import nn

import gleam_mm
from gleam_mm.checkpoint import (
    CheckpointError,
    load_from_local,
    read_adapter,
    read_state_dict,
    resolve_path,
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
