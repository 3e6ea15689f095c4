"""tools/extract.py as a user runs it."""

import torch

from gleam_mm.config import recipes
from gleam_mm.models import load_model


def test_an_adapter_of_a_checkpoint_is_measured(call, config, tmp_path):
    cfg = recipes.load(config)
    cfg.model.petl = dict(type='FullTuning')
    model = load_model(cfg, options={'model.head.num_classes': 10})
    with torch.no_grad():
        model.backbone.layers[0].attn.qkv.weight.add_(0.1 * torch.randn(96, 32))
    full = tmp_path / 'full.pth'
    torch.save(dict(state_dict=model.state_dict()), full)
    out = tmp_path / 'out.safetensors'
    done = call('extract.py', full, config, out, '--energy', '0.9', '--val')
    assert done.code == 0, done.err
    first = next(line.split() for line in done.out.splitlines() if line.startswith('layers.0.attn'))
    assert 0.9 <= float(first[1]) < 1
    before, after = done.out.splitlines()[-2:]
    assert before.startswith(str(full)) and after.startswith(str(out))
    assert all(0 <= float(row.split()[-1]) <= 100 for row in (before, after))

    done = call('extract.py', full, config, out, '--rank', '0')
    assert (done.code, 'rank=0: give a rank of at least 1' in done.err) == (2, True)
    done = call('extract.py', full, config, 'out.pth', '--rank', '1')
    assert (done.code, 'an adapter is a .safetensors file' in done.err) == (2, True)
