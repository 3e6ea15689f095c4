"""tools/convert_weights.py and tools/fetch_weights.py, as a user runs them."""

import pytest
import timm
import torch

from gleam_mm.checkpoint import read_state_dict


@pytest.fixture
def source(tmp_path):
    model = timm.create_model(
        'vit_base_patch16_224', img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3
    )
    torch.save(model.state_dict(), tmp_path / 'source.pth')
    return model


def test_converting(run, source, tmp_path):
    done = run('convert_weights.py', 'source.pth', 'new/vit.safetensors', cwd=tmp_path)
    assert done.code == 0, done.err
    assert 'source.pth: ViT of timm' in done.out
    assert 'wrote new/vit.safetensors: 18 tensors' in done.out
    assert 'classification head: head.weight, head.bias' in done.out
    assert '4 x 4 patches' in done.out
    assert len(read_state_dict(tmp_path / 'new/vit.safetensors')) == 18


def test_mistakes_take_one_line_and_exit_with_2(call, source, tmp_path):
    state = torch.load(tmp_path / 'source.pth')
    torch.save({**state, 'blocks.0.attn.gate': torch.ones(3)}, tmp_path / 'scaled.pth')
    (tmp_path / 'there.pth').touch()
    for arguments, told in [
        (['scaled.pth', 'done.pth'], ["scaled.pth: the key 'blocks.0.attn.gate'"]),
        (['none.pth', 'done.pth'], ['none.pth: no such file']),
        (['source.pth', 'there.pth'], ['there.pth', '--force']),
        (['source.pth', 'done.bin'], ['done.bin', '.safetensors or .pth']),
    ]:
        done = call('convert_weights.py', *arguments)
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
        assert all(part in done.err for part in told)
    assert not (tmp_path / 'done.pth').exists()


def test_listing_needs_no_network(call):
    done = call('fetch_weights.py', '--list')
    assert done.code == 0
    assert 'ViT-B_16.npz' in done.out
    assert call('fetch_weights.py', 'vit-x').code == 2
