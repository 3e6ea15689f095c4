"""Converted weights give the features that they gave before, and no key is lost in silence.

The references are timm's own models and timm's own reader of Google's format. Features are compared
in float64: float32 rounds them by about 1e-6, which would hide as much.
"""

import gleam_mm  # noqa: F401  (applies the patches that importing timm may need)

# isort: split

import os
import pickle
import zipfile

import numpy as np
import pytest
import timm
import torch
from mmpretrain.models import SwinTransformer, TIMMBackbone, VisionTransformer
from safetensors.torch import load_file, save_file

from gleam_mm.checkpoint import CheckpointError, load_backbone
from gleam_mm.checkpoint.convert import (
    Conversion,
    ConversionError,
    convert,
    convert_file,
    read,
    summary,
)

VIT, SWIN = 'vit_base_patch16_224', 'swin_base_patch4_window7_224'
SMALL_VIT = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
SMALL_SWIN = dict(
    img_size=32, patch_size=2, embed_dim=8, depths=(2, 2, 2), num_heads=(2, 2, 2), window_size=4
)
VIT_ARCH = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=96)
SWIN_ARCH = dict(embed_dims=8, depths=[2, 2, 2], num_heads=[2, 2, 2])


def small_vit(**options):
    return VisionTransformer(VIT_ARCH, **dict(dict(img_size=32, patch_size=8), **options))


def small_swin():
    return SwinTransformer(
        SWIN_ARCH, img_size=32, patch_size=2, window_size=4, out_indices=(2,), drop_path_rate=0
    )


def random_model(name, **options):
    """timm's model with every parameter random, LayerNorms' too: a wrong order must show."""
    torch.manual_seed(1)
    model = timm.create_model(name, pretrained=False, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for key, parameter in model.named_parameters():
        if 'norm' in key:
            parameter.data += key.endswith('weight')
        if 'relative_position' in key or key == 'pos_embed':
            torch.nn.init.normal_(parameter)
    return model


def features(model, images):
    """The last features, (B, C) for ViT (class token) and (B, C, H, W) for Swin."""
    model.double().eval()
    images = images.double()
    with torch.no_grad():
        if isinstance(model, VisionTransformer | SwinTransformer):
            return model(images)[-1]
        if isinstance(model, TIMMBackbone):
            model = model.timm_model
        tokens = model.forward_features(images)
        return tokens.permute(0, 3, 1, 2) if tokens.ndim == 4 else tokens[:, 0]


def google(model):
    """A ViT of timm as arrays in Google's format."""
    heads, state = model.blocks[0].attn.num_heads, model.state_dict()
    state = {key: value.numpy() for key, value in state.items()}
    width = state['cls_token'].shape[-1]
    arrays = {
        'cls': state['cls_token'],
        'embedding/kernel': state['patch_embed.proj.weight'].transpose(2, 3, 1, 0),
        'embedding/bias': state['patch_embed.proj.bias'],
        'Transformer/posembed_input/pos_embedding': state['pos_embed'],
        'Transformer/encoder_norm/scale': state['norm.weight'],
        'Transformer/encoder_norm/bias': state['norm.bias'],
        'pre_logits/kernel': np.ones((width, width), 'f4'),
        'pre_logits/bias': np.ones(width, 'f4'),
        'head/kernel': np.ones((width, 5), 'f4'),
        'head/bias': np.ones(5, 'f4'),
    }
    for i in range(len(model.blocks)):
        ours, theirs = f'blocks.{i}', f'Transformer/encoderblock_{i}'
        for norm, name in (('norm1', 'LayerNorm_0'), ('norm2', 'LayerNorm_2')):
            arrays[f'{theirs}/{name}/scale'] = state[f'{ours}.{norm}.weight']
            arrays[f'{theirs}/{name}/bias'] = state[f'{ours}.{norm}.bias']
        for layer, name in (('fc1', 'Dense_0'), ('fc2', 'Dense_1')):
            arrays[f'{theirs}/MlpBlock_3/{name}/kernel'] = state[f'{ours}.mlp.{layer}.weight'].T
            arrays[f'{theirs}/MlpBlock_3/{name}/bias'] = state[f'{ours}.mlp.{layer}.bias']
        attention = f'{theirs}/MultiHeadDotProductAttention_1'
        weight = state[f'{ours}.attn.qkv.weight'].reshape(3, heads, -1, width)
        bias = state[f'{ours}.attn.qkv.bias'].reshape(3, heads, -1)
        for j, name in enumerate(('query', 'key', 'value')):
            arrays[f'{attention}/{name}/kernel'] = weight[j].transpose(2, 0, 1)
            arrays[f'{attention}/{name}/bias'] = bias[j]
        proj = state[f'{ours}.attn.proj.weight'].T
        arrays[f'{attention}/out/kernel'] = proj.reshape(heads, -1, width)
        arrays[f'{attention}/out/bias'] = state[f'{ours}.attn.proj.bias']
    return arrays


def microsoft(model):
    """A Swin of timm as the authors' checkpoint: merging ends a stage, buffers are saved."""
    state = {}
    for key, value in model.state_dict().items():
        if '.downsample.' in key:
            stage = int(key.split('.')[1])
            key = key.replace(f'layers.{stage}.', f'layers.{stage - 1}.', 1)
        state[key.replace('head.fc.', 'head.')] = value
    state.update(
        (key, value)
        for key, value in model.named_buffers()
        if value is not None and key.endswith(('attn_mask', 'relative_position_index'))
    )
    return {'model': state}


SOURCES = {
    'timm ViT .safetensors': (VIT, SMALL_VIT, small_vit),
    'timm ViT .bin': (VIT, SMALL_VIT, small_vit),
    'Google ViT .npz': (VIT, SMALL_VIT, small_vit),
    'timm Swin .safetensors': (SWIN, SMALL_SWIN, small_swin),
    'Microsoft Swin .pth': (SWIN, SMALL_SWIN, small_swin),
}


def write(source, model, folder):
    """Writes the weights of timm's model as its distributor would."""
    kind, _, suffix = source.split()
    file = folder / f'source{suffix}'
    if kind == 'Google':
        np.savez(file, **google(model))
    elif kind == 'Microsoft':
        torch.save(microsoft(model), file)
    elif suffix == '.safetensors':
        save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file)
    return file


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
@pytest.mark.parametrize('source', SOURCES)
def test_small_models_keep_their_features(source, suffix, tmp_path):
    name, options, build = SOURCES[source]
    reference, ours = random_model(name, **options), build()
    done = tmp_path / f'done{suffix}'
    conversion = convert_file(write(source, reference, tmp_path), done)
    load_backbone(ours, done)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        features(ours, images), features(reference, images), rtol=0, atol=1e-9
    )
    assert source.split()[1] in conversion.source


@pytest.mark.parametrize('source', SOURCES)
def test_for_timms_classes(source, tmp_path):
    name, options, _ = SOURCES[source]
    reference, ours = random_model(name, **options), TIMMBackbone(name, **options)
    convert_file(write(source, reference, tmp_path), tmp_path / 'done.safetensors', target='timm')
    load_backbone(ours, tmp_path / 'done.safetensors')
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        features(ours, images), features(reference, images), rtol=0, atol=1e-9
    )


# Models of timm, and MMPretrain's class for them; None where it has none.
RELATIVES = {
    'vit_small_patch14_dinov2': lambda: small_vit(layer_scale_init_value=1e-5),
    'vit_base_patch16_clip_224': lambda: small_vit(
        pre_norm=True, patch_cfg=dict(bias=False), norm_cfg=dict(type='LN', eps=1e-5)
    ),
    'deit3_small_patch16_224': None,
    'vit_small_patch14_reg4_dinov2': None,
    'vit_base_patch16_siglip_224': None,
}


@pytest.mark.parametrize('name', [name for name, build in RELATIVES.items() if build])
def test_layer_scale_and_a_norm_before_the_blocks(name):
    reference, ours = random_model(name, **SMALL_VIT), RELATIVES[name]()
    conversion = convert(reference.state_dict())
    ours.load_state_dict(conversion.tensors)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        features(ours, images), features(reference, images), rtol=0, atol=1e-9
    )
    assert conversion.grid == 4


def test_deit3_is_for_timms_class_alone():
    state = random_model('deit3_small_patch16_224', **SMALL_VIT).state_dict()
    with pytest.raises(ConversionError, match=r'as of DeiT-3: .* pass --target timm'):
        convert(state)


@pytest.mark.parametrize('name', RELATIVES)
def test_timms_own_class_takes_whatever_timm_has(name):
    reference, ours = random_model(name, **SMALL_VIT), TIMMBackbone(name, **SMALL_VIT)
    conversion = convert(reference.state_dict(), 'timm')
    ours.load_state_dict(conversion.tensors)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        features(ours, images), features(reference, images), rtol=0, atol=1e-9
    )
    assert conversion.grid == 4
    assert all('head' in key or 'attn_pool' in key for key in conversion.dropped)


@pytest.mark.slow
def test_true_weights_of_dinov2():
    """On the file that GLEAM_TEST_DINOV2 names: ViT-S/14 under timm's names."""
    file = os.environ.get('GLEAM_TEST_DINOV2')
    if not file:
        pytest.skip('GLEAM_TEST_DINOV2 names no file')
    weights = read(file)
    reference = timm.create_model('vit_small_patch14_dinov2', pretrained=False)
    reference.load_state_dict(weights)
    arch = dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536)
    ours = VisionTransformer(arch, img_size=518, patch_size=14, layer_scale_init_value=1e-5)
    ours.load_state_dict(convert(weights).tensors)
    images = torch.randn(1, 3, 518, 518)
    torch.testing.assert_close(
        features(ours, images), features(reference, images), rtol=0, atol=1e-6
    )


def test_googles_format_is_read_as_timm_reads_it(tmp_path):
    file = write('Google ViT .npz', random_model(VIT, **SMALL_VIT), tmp_path)
    reference, ours = (
        timm.create_model(VIT, pretrained=False, num_classes=0, **SMALL_VIT),
        small_vit(),
    )
    reference.load_pretrained(str(file))
    convert_file(file, tmp_path / 'done.pth')
    load_backbone(ours, tmp_path / 'done.pth')
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        features(ours, images), features(reference, images), rtol=0, atol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ('source', 'build', 'tolerance'),
    [
        (
            'timm ViT .safetensors',
            lambda: VisionTransformer('b', img_size=224, patch_size=16),
            1e-6,
        ),
        ('Google ViT .npz', lambda: VisionTransformer('b', img_size=224, patch_size=16), 1e-6),
        ('Microsoft Swin .pth', lambda: SwinTransformer('base', img_size=224), 1e-5),
    ],
)
def test_base_models_keep_their_features(source, build, tolerance, tmp_path):
    reference = random_model(SOURCES[source][0])
    convert_file(write(source, reference, tmp_path), tmp_path / 'done.safetensors')
    ours = build()
    load_backbone(ours, tmp_path / 'done.safetensors')
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(
        features(ours, images), features(reference, images), rtol=0, atol=tolerance
    )


def test_what_is_left_out_is_named():
    vit = convert(random_model(VIT, num_classes=5, **SMALL_VIT).state_dict())
    assert vit.dropped == dict.fromkeys(['head.weight', 'head.bias'], 'classification head')
    swin = microsoft(random_model(SWIN, num_classes=5, **SMALL_SWIN))['model']
    dropped = convert(swin).dropped
    assert {'head.weight', 'head.bias'} < set(dropped)
    masks = {key for key in swin if key.endswith('attn_mask')}
    assert masks
    assert set(dropped) == masks | {'head.weight', 'head.bias'}
    lines = summary('a.pth', 'b.pth', convert(swin))
    assert all(key in lines for key in dropped)
    hostile = Conversion('ViT', {}, {'head.\x1b[31m\n': 'classification head'}, None)
    assert summary('a.pth', 'b.pth', hostile).endswith(r': head.\x1b[31m\n')


def test_every_other_key_is_there():
    """As many numbers come out as go in, the head and MMPretrain's buffers aside."""
    for model in (random_model(VIT, **SMALL_VIT), random_model(SWIN, **SMALL_SWIN)):
        state = model.state_dict()
        done = convert(state)
        kept = sum(value.numel() for key, value in state.items() if key not in done.dropped)
        written = sum(
            value.numel()
            for key, value in done.tensors.items()
            if not key.endswith('relative_position_index')
        )
        assert written == kept


@pytest.mark.parametrize(
    ('model', 'key', 'target'),
    [
        ((VIT, SMALL_VIT), 'blocks.0.attn.q_norm.weight', 'mmpretrain'),
        ((VIT, SMALL_VIT), 'reg_token', 'mmpretrain'),
        ((SWIN, SMALL_SWIN), 'layers.0.blocks.0.attn.logit_scale', 'mmpretrain'),
        ((SWIN, SMALL_SWIN), 'absolute_pos_embed', 'mmpretrain'),
        ((SWIN, SMALL_SWIN), 'absolute_pos_embed', 'timm'),
    ],
)
def test_a_key_without_a_place_is_an_error(model, key, target):
    name, options = model
    state = random_model(name, **options).state_dict()
    with pytest.raises(ConversionError, match=repr(key)):
        convert({**state, key: torch.zeros(3)}, target)


def test_googles_keys_without_a_place_are_errors():
    arrays = {key: torch.tensor(v) for key, v in google(random_model(VIT, **SMALL_VIT)).items()}
    with pytest.raises(ConversionError, match='Transformer/encoderblock_0/Gate/kernel'):
        convert({**arrays, 'Transformer/encoderblock_0/Gate/kernel': torch.zeros(3)})
    del arrays['Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias']
    with pytest.raises(ConversionError, match='encoderblock_1 lacks the bias of its key'):
        convert(arrays)


def test_another_order_of_relative_positions_is_an_error():
    state = microsoft(random_model(SWIN, **SMALL_SWIN))['model']
    key = 'layers.0.blocks.0.attn.relative_position_index'
    with pytest.raises(ConversionError, match=key):
        convert({**state, key: state[key].T.clone()})


def test_other_architectures_are_refused():
    with pytest.raises(ConversionError, match='neither a ViT nor a Swin'):
        convert({'conv1.weight': torch.zeros(1)})
    with pytest.raises(ConversionError, match='already'):
        convert(small_vit().state_dict())
    with pytest.raises(ConversionError, match='already'):
        convert(small_swin().state_dict())


def test_an_image_size_of_the_config_is_met_when_loading(tmp_path):
    """The position embedding is kept; MMPretrain's ViT interpolates it."""
    file = write('timm ViT .safetensors', random_model(VIT, **SMALL_VIT), tmp_path)
    conversion = convert_file(file, tmp_path / 'done.pth')
    assert conversion.grid == 4
    larger = small_vit(img_size=48)
    load_backbone(larger, tmp_path / 'done.pth')
    assert larger.pos_embed.shape[1] == 1 + 6 * 6


@pytest.fixture
def source(tmp_path):
    return write('timm ViT .safetensors', random_model(VIT, **SMALL_VIT), tmp_path)


def test_nothing_is_replaced_unless_forced(source, tmp_path):
    done = tmp_path / 'done.safetensors'
    done.write_bytes(b'precious')
    with pytest.raises(ConversionError, match='--force'):
        convert_file(source, done)
    assert done.read_bytes() == b'precious'
    convert_file(source, done, force=True)
    assert 'layers.0.ln1.weight' in load_file(done)
    with pytest.raises(ConversionError, match='source itself'):
        convert_file(source, source, force=True)


def test_an_interruption_leaves_nothing(source, tmp_path, monkeypatch):
    """Also what was there stays whole."""
    done = tmp_path / 'done.pth'
    done.write_bytes(b'precious')
    before = set(tmp_path.iterdir())

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_file(source, done, force=True)
    assert set(tmp_path.iterdir()) == before
    assert done.read_bytes() == b'precious'


class _Exploding:
    def __reduce__(self):
        return os.mkdir, ('exploded',)


@pytest.mark.parametrize('name', ['bad.npz', 'bad.pth', 'bad.safetensors'])
def test_damaged_and_crafted_files_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    contents = [b'', b'<html>', b'PK\x03\x04 cut short', pickle.dumps(_Exploding())]
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            convert_file(file, tmp_path / 'done.pth')
    np.savez(tmp_path / 'objects.npz', cls=np.array([_Exploding()], object))
    with pytest.raises(CheckpointError, match=r'objects\.npz'):
        convert_file(tmp_path / 'objects.npz', tmp_path / 'done.pth')
    torch.save({'model': {'epoch': 3}}, tmp_path / 'numbers.pth')
    with pytest.raises(CheckpointError, match=r'numbers\.pth'):
        convert_file(tmp_path / 'numbers.pth', tmp_path / 'done.pth')
    with pytest.raises(FileNotFoundError, match=r'none\.npz'):
        convert_file(tmp_path / 'none.npz', tmp_path / 'done.pth')
    assert not (tmp_path / 'exploded').exists()
    assert not (tmp_path / 'done.pth').exists()


def test_a_destination_has_a_known_suffix(source, tmp_path):
    with pytest.raises(ConversionError, match=r'\.safetensors or \.pth'):
        convert_file(source, tmp_path / 'done.npz')


def crafted_array(file, shape):
    """Four numbers whose header claims another shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    array = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + bytes(16)
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('embedding/kernel.npy', array)


@pytest.mark.parametrize('shape', ['(35184372088832,)', '(4194304, 8388608)', '(3,)', '()'])
def test_a_header_that_claims_other_numbers_is_refused_before_memory_is_taken(shape, tmp_path):
    crafted_array(tmp_path / 'crafted.npz', shape)
    told = r'crafted\.npz: .*embedding/kernel\.npy claims [\d,]+ numbers in 16 bytes'
    with pytest.raises(CheckpointError, match=told):
        convert_file(tmp_path / 'crafted.npz', tmp_path / 'done.pth')


def test_compressed_arrays_are_read(tmp_path):
    arrays = {'a': np.zeros((100, 100), np.float32), 'b': np.float32(3)}
    np.savez_compressed(tmp_path / 'x.npz', **arrays)
    assert {key: value.shape for key, value in read(tmp_path / 'x.npz').items()} == {
        'a': (100, 100),
        'b': (),
    }
