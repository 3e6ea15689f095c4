"""tools/compress.py as a user runs it."""

import re

import torch

from gleam_mm.checkpoint import read_adapter, save_adapter
from gleam_mm.models import load_model


def test_smaller_files_load_and_are_measured(call, config, tmp_path):
    options = {'model.head.num_classes': 10}
    model = load_model(str(config), options=options)
    torch.manual_seed(1)
    for parameter in model.petl.parameters():
        torch.nn.init.normal_(parameter, 0.05, 0.1)
    tensors = {name: t for name, t in model.state_dict().items() if name != '_extra_state'}
    adapter = tmp_path / 'adapter.safetensors'
    save_adapter(adapter, tensors, dict(backbone_fingerprint=model.backbone_fingerprint()))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)

    errors, sizes = [], [adapter.stat().st_size]
    for bits in ('fp16', '8', '4', '1'):
        out = tmp_path / f'{bits}.safetensors'
        done = call('compress.py', adapter, out, '--bits', bits)
        assert done.code == 0, done.err
        assert re.search(rf'adapter\.safetensors +{sizes[0] / 1e3:.1f} KB', done.out)
        sizes.append(out.stat().st_size)
        assert re.search(rf'{bits}\.safetensors +{sizes[-1] / 1e3:.1f} KB', done.out)
        with torch.no_grad():
            outputs = load_model(str(config), out, options)(images)
        errors.append((outputs - expected).norm() / expected.norm())
    assert 0 < errors[0] < 1e-2 < errors[2] < errors[3]
    assert errors[1] < 0.05
    weights = sum(t.numel() for t in tensors.values() if t.ndim > 1)
    assert sizes[0] - sizes[4] > 0.6 * weights * (4 - 1 / 8)
    small, _ = read_adapter(tmp_path / '1.safetensors')
    assert torch.equal(small['head.fc.bias'], tensors['head.fc.bias'])
    assert small['head.fc.weight'].unique().numel() == 2

    done = call('compress.py', out, tmp_path / 'again.safetensors')
    assert done.code == 2
    assert 'nothing in it can be compressed any more' in done.err

    done = call('compress.py', adapter, tmp_path / 'b.safetensors', '--config', config)
    assert done.code == 0, done.err
    head, _, before, after = done.out.splitlines()[-4:]
    assert head.split()[-1] == 'accuracy/top1'
    for row in (before, after):
        assert 0 <= float(row.split()[-1]) <= 100


def test_mistakes_are_named(call, tmp_path):
    done = call('compress.py', 'a.safetensors', 'out.pth')
    assert (done.code, 'an adapter is a .safetensors file' in done.err) == (2, True)
    done = call('compress.py', tmp_path / 'none.safetensors', 'out.safetensors')
    assert (done.code, 'no such file' in done.err) == (2, True)
