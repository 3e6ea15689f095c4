"""The YAML file of a server."""

import os

import pytest

from gleam_mm.serve import settings


def test_paths_stand_beside_the_file(tmp_path):
    file = tmp_path / 'bank.yaml'
    file.write_text(
        'backbone: vit-mini\nweights: gleam_mm://weights/vit-mini.safetensors\n'
        'adapters: {pets: a/pets.safetensors, cars: /x.safetensors}\nfolder: added\nport: 0\n'
    )
    told = settings.read(file)
    assert told.backbone == 'vit-mini'
    assert str(told.weights) == 'gleam_mm://weights/vit-mini.safetensors'
    assert str(told.adapters['pets']) == str(tmp_path / 'a/pets.safetensors')
    assert str(told.adapters['cars']) == '/x.safetensors'
    assert told.folder == tmp_path / 'added'
    assert told.with_flags(port=80, host=None).port == 80
    assert told.with_flags(port=80, host=None).host == '127.0.0.1'
    file.write_text('folder: added')
    assert settings.read(file) == settings.Settings(folder=tmp_path / 'added')


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r': a directory; give a YAML file'):
        settings.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'lost\.yaml: no such file; give a YAML file'):
        settings.read(tmp_path / 'lost.yaml')
    os.mkfifo(tmp_path / 'pipe.yaml')  # which would be waited for
    with pytest.raises(FileNotFoundError, match=r'pipe\.yaml: no such file; give a YAML file'):
        settings.read(tmp_path / 'pipe.yaml')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('adapters: [', 'no YAML: '),
        ('!!python/object/apply:os.system [ls]', 'no YAML: .*python/object'),
        ('[]', 'expected a mapping'),
        ('', 'there is nothing to serve: name adapters, or a folder'),
        ('{adapters: {}, port: 80}', 'there is nothing to serve'),
        ('adaptors: {}', "'adaptors' is no key of it"),
        ('adapters: {pets: 7}', 'adapters is .*expected a mapping of texts, each to a text'),
        ('adapters: {../x: a}', "task '../x': a name has"),
        ('port: 70000', 'port is 70000, expected a number from 0 to 65535'),
        ('max_wait_ms: .nan', 'max_wait_ms is nan'),
        ('max_bytes: 0', 'max_bytes is 0, expected a whole number, at least 1'),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, message):
    file = tmp_path / 'bank.yaml'
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as wrong:
        settings.read(file)
    assert str(wrong.value).startswith(f'{file}: ') and '\n' not in str(wrong.value)
