"""tools/combine.py as a user runs it."""

import pytest
import torch

from gleam_mm.checkpoint import read_adapter, save_adapter
from gleam_mm.config import recipes
from gleam_mm.models import load_model


@pytest.fixture
def adapters(config, tmp_path):
    """Two adapters of a LoRA that was never trained."""
    files = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        cfg = recipes.load(config)
        cfg.model.petl = dict(type='LoRA', rank=2)
        model = load_model(cfg, options={'model.head.num_classes': 10})
        for parameter in model.petl.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.1)
        tensors = {name: t for name, t in model.state_dict().items() if name != '_extra_state'}
        files.append(tmp_path / f'{seed}.safetensors')
        fingerprint = model.backbone_fingerprint()
        save_adapter(files[-1], tensors, dict(model.description, backbone_fingerprint=fingerprint))
    return files


@pytest.mark.slow
def test_a_product_is_written_and_measured(call, config, adapters, tmp_path):
    a, b = adapters
    out = tmp_path / 'out.safetensors'
    words = [f'{a}:0.7', f'{b}:0.3', '--how', 'product', '--config', config]
    done = call('combine.py', out, *words)
    assert done.code == 0, done.err
    head, _, first, second, total, rank = done.out.splitlines()[-6:]
    assert head.split() == ['file', 'weight', 'accuracy/top1']
    assert [row.split()[1] for row in (first, second, total)] == ['0.7', '0.3', 'product']
    assert all(0 <= float(row.split()[2]) <= 100 for row in (first, second, total))
    assert rank == 'rank 4'
    assert read_adapter(out)[1]['method']['rank'] == 4

    cut = tmp_path / 'cut.safetensors'
    done = call('combine.py', cut, a, b, '--how', 'product', '--rank', '1')
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith('rank 1, energy 0.')


def test_mistakes_are_named(call, adapters):
    for words, told in (
        (['a.pth', 'x'], 'an adapter is a .safetensors file'),
        (['a.safetensors', 'x:1', 'y'], 'a weight to every adapter, or to none'),
        (['a.safetensors', adapters[0]], 'give two files or more'),
        (['a.safetensors', *adapters, '--how', 'negate'], 'how=negate takes one file'),
        (['a.safetensors', 'x', 'y'], 'no such file'),
        ([*adapters, 'x'], '1.safetensors exists already: name another file to write, or'),
        (['a.safetensors', *adapters, '--rank', '2'], 'rank=2: products are cut'),
    ):
        done = call('combine.py', *words)
        assert (done.code, told in done.err, done.err.count('\n')) == (2, True, 1), done.err
