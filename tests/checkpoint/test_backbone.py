import pytest
import safetensors.torch
import torch
from backbones import BACKBONES
from mmpretrain.models import VisionTransformer
from state_dicts import assert_equal

from gleam_mm.checkpoint import CheckpointError, load_backbone


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


def test_hint_names_the_prefix_of_most_keys(tmp_path):
    """Swin has norms in every block that are called like the one behind the last of them."""
    swin = BACKBONES['swin']()
    torch.save(swin.state_dict(), tmp_path / 'swin.pth')
    with pytest.raises(CheckpointError, match=r"Did you mean prefix=''\?"):
        load_backbone(BACKBONES['swin'](), tmp_path / 'swin.pth', 'stages.1.blocks.0.')
    state = {**swin.state_dict(), 'extra': torch.ones(1)}
    torch.save(state, tmp_path / 'swin.pth')
    with pytest.raises(CheckpointError, match='Not in the backbone: extra') as caught:
        load_backbone(BACKBONES['swin'](), tmp_path / 'swin.pth')
    assert 'Did you mean' not in str(caught.value)


@pytest.mark.parametrize('index', [True, False])
def test_swin_is_loaded_at_another_size_of_windows(index, tmp_path):
    source, target = BACKBONES['swin'](), BACKBONES['swin'](img_size=64, window_size=8)
    state = source.state_dict()
    if not index:
        state = {key: value for key, value in state.items() if not key.endswith('_index')}
    torch.save(state, tmp_path / 'swin.pth')
    load_backbone(target, tmp_path / 'swin.pth')
    ours, theirs = source.stages[0].blocks[0].attn.w_msa, target.stages[0].blocks[0].attn.w_msa
    assert torch.equal(theirs.qkv.weight, ours.qkv.weight)
    assert theirs.relative_position_bias_table.shape == (225, 2)
    middle = theirs.relative_position_bias_table.view(15, 15, 2)[7, 7]
    expected = ours.relative_position_bias_table.view(7, 7, 2)[3, 3]
    torch.testing.assert_close(middle, expected)
    assert theirs.relative_position_index.shape == (64, 64)
    target.eval()
    assert target(torch.zeros(1, 3, 64, 64))[-1].isfinite().all()


def test_missing_pretrained_weights(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r'vit\.pth.* are not there; put them there'):
        load_backbone(make_vit(), tmp_path / 'vit.pth')
    monkeypatch.chdir(tmp_path)
    path = 'checkpoints/timm-vit-b_in21k.safetensors'  # as the recipes have it
    with pytest.raises(FileNotFoundError, match=f"{path}: .* 'gleam-mm fetch-weights timm-vit-b'"):
        load_backbone(make_vit(), path)
