"""tools/verify.py as a user runs it."""

import safetensors.torch
import torch

from gleam_mm.checkpoint import save_adapter


def test_every_file_is_told(call, tmp_path):
    weights = {'a': torch.arange(100.0)}
    save_adapter(tmp_path / 'adapter.safetensors', weights, {'epoch': 1})
    save_adapter(tmp_path / 'damaged.safetensors', weights, {'epoch': 1})
    torch.save({'state_dict': weights, 'meta': {}}, tmp_path / 'epoch_1.pth')
    torch.save(weights, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(weights, tmp_path / 'plain.safetensors')
    data = bytearray((tmp_path / 'damaged.safetensors').read_bytes())
    data[-7] ^= 1
    (tmp_path / 'damaged.safetensors').write_bytes(data)

    names = ('adapter.safetensors', 'epoch_1.pth', 'old.pth', 'plain.safetensors')
    whole = [str(tmp_path / name) for name in names]
    done = call('verify.py', *whole)
    assert done.code == 0, done.err
    told = [
        'whole by the SHA-256 of its 1 tensors and metadata',
        'whole by the CRC-32 of its ',
        'can be read; the format of torch before 1.6 has no checksums',
        'can be read; its 1 tensors have no checksum',
    ]
    lines = done.out.splitlines()
    assert len(lines) == 4
    for file, text, line in zip(whole, told, lines, strict=True):
        assert line.startswith(f'{file}: {text}')

    safetensors.torch.save_file(
        weights, tmp_path / 'nan.safetensors', {'gleam_mm': '{"method": {"rank": NaN}}'}
    )
    done = call('verify.py', str(tmp_path / 'nan.safetensors'), whole[0])
    first, second = done.out.splitlines()
    assert done.code == 1 and first.startswith(f'{tmp_path / "nan.safetensors"}: its metadata')
    assert second.startswith(f'{whole[0]}: whole')

    wrong = [str(tmp_path / name) for name in ('damaged.safetensors', 'none.pth')]
    done = call('verify.py', wrong[0], whole[0], wrong[1])
    assert done.code == 1
    first, second, third = done.out.splitlines()
    assert first.startswith(f'{wrong[0]}: damaged: ')
    assert second.startswith(f'{whole[0]}: whole')
    assert third.startswith(f'{wrong[1]}: no such file')
