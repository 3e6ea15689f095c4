"""Every family of backbones is what its row in docs/backbones.md says."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from families import FAMILIES, TIMM, size_of
from layouts.backbone_table import PAGE, close, make, measure, outputs, page

from gleam_mm.layouts import find_layout
from gleam_mm.layouts.family_layout import _grid
from gleam_mm.petl import DTL, ILA, READ, SSF, VPT, AdaptFormer, CoDA, Convpass, DyT, LoRA, LoReFT
from gleam_mm.registry import MODELS

QUICK = ('timm-eva02', 'timm-beit', 'timm-swinv2', 'timm-sam', 'mm-beit', 'hf-vit', 'tv-swin')


def rows():
    lines = PAGE.read_text('utf-8').splitlines()
    return [line for line in lines if line.startswith(('| timm-', '| mm-', '| hf-', '| tv-'))]


@pytest.mark.parametrize(
    'family',
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FAMILIES],
)
def test_its_row_is_what_is_measured(family):
    assert measure(family) in rows()


def test_the_page_has_every_family():
    assert PAGE.read_text('utf-8') == page(rows())
    assert [row.split(' | ')[0].removeprefix('| ') for row in rows()] == list(FAMILIES)


def count(library, column):
    header = next(line for line in PAGE.read_text('utf-8').splitlines() if ' trains ' in line)
    place = header.split(' | ').index(column)
    classes = {
        cells[2]
        for row in rows()
        if (cells := row.split(' | '))[1] == library and cells[place] == '✓'
    }
    return len(classes)


def test_as_many_are_supported_as_promised():
    """Classes, not models: several rows may be of one."""
    assert count('timm', 'trains') >= 28
    assert count('timm', 'GLEAM') >= 20
    assert count('MMPretrain', 'trains') >= 14


@pytest.mark.parametrize('library', ['timm', 'mm'])
def test_calls_through_a_weight_that_is_multiplied_by(library):
    """BEiT multiplies by qkv.weight: what is adapted there reaches the output, and no further."""
    family, images = f'{library}-beit', torch.randn(2, 3, 24, 40)
    model, untouched = make(family), make(family)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    method = LoRA(rank=2, drop_rate=0.5)
    method.attach(model, probe=True)
    assert {site.name.rpartition('.')[2] for site in method.sites.values()} == {'qkv'}
    with torch.no_grad():
        before = outputs(untouched, images)
        assert close(outputs(model, images), before, 2e-6)
        for site in method.sites.values():
            method.local[site.key].up.normal_()
        adapted = outputs(model, images)
        assert not close(adapted, before, 1e-2)
        # As if the weights had it.
        for name, module in untouched.named_modules():
            if name in (names := {site.name: site for site in method.sites.values()}):
                module.weight.copy_(method.fold(names[name], module.weight, None)[0])
        assert close(outputs(untouched, images), adapted, 1e-5)
        assert model.state_dict().keys() == state.keys()
        copied, _ = copy.deepcopy((model, method))
        assert torch.equal(outputs(copied, images), adapted)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: outputs(model, images), range(8)))
        assert all(close(one, adapted, 1e-6) for one in found)
    method.detach()
    assert not any('forward' in vars(module) for module in model.modules())
    with torch.no_grad():
        assert torch.equal(outputs(model, images), before)


@pytest.mark.parametrize('sites', [('qkv', 'proj'), ('q', 'v')])
def test_an_attention_of_pytorch_by_steps(sites):
    """torchvision's own class computes from the merged weights what the method has computed."""
    model, untouched, images = make('tv-vit'), make('tv-vit'), torch.randn(2, 3, 32, 32)
    keys = model.state_dict().keys()
    method = LoRA(rank=2, sites=sites)
    method.attach(model, probe=True)
    with torch.no_grad():
        before = outputs(untouched, images)
        assert close(outputs(model, images), before, 2e-6)
        for local in method.local.values():
            local.up.normal_()
        adapted = outputs(model, images)
        copied, _ = copy.deepcopy((model, method))
        assert torch.equal(outputs(copied, images), adapted)
        method.merge()
        assert model.state_dict().keys() == keys
        untouched.load_state_dict(model.state_dict())
        assert close(outputs(untouched, images), adapted, 1e-5)
        method.detach()
        assert not any('forward' in vars(module) for module in model.modules())
        assert torch.equal(outputs(model, images), before)


def test_an_attention_of_pytorch_is_called_with_one_sequence_and_no_masks():
    model, x = make('tv-vit'), torch.randn(1, 4, 32)
    LoRA(rank=2).attach(model)
    attention = model.model.encoder.layers[0].self_attention
    attention(x, x, x, need_weights=False)
    with pytest.raises(RuntimeError, match='knows no masks and gives no weights'):
        attention(x, x, x)
    with pytest.raises(RuntimeError, match='within one sequence'):
        attention(x, x + 1, x, need_weights=False)


def test_what_does_not_fit_is_refused_with_its_reason():
    with pytest.raises(ValueError, match='VPT cannot add tokens to those of Eva: its attention'):
        VPT(num_prompts=2).attach(make('timm-eva02'))
    with pytest.raises(ValueError, match='AdaptFormer reads the residual stream'):
        AdaptFormer().attach(make('timm-swinv2'))
    with pytest.raises(ValueError, match=r'Convpass needs the grid .* Hiera form none: they stand'):
        Convpass().attach(make('timm-hiera'))
    with pytest.raises(
        ValueError, match=r'whole blocks .* TNT cannot be: they carry two sequences'
    ):
        AdaptFormer().attach(make('timm-tnt'))


@pytest.mark.parametrize(
    ('family', 'method', 'message'),
    [
        ('timm-cait', Convpass(), r'Convpass does not fit Cait: .* 1 of width 32\. Leave block 2'),
        ('timm-cait', ILA(), "ILA does not fit Cait: .* 'blocks_token_only.0', 15 tokens"),
        ('timm-xcit', READ(), "READ does not fit Xcit: .* 'cls_attn_blocks.0', 16 of width 32"),
        ('timm-xcit', DTL(), "DTL does not fit Xcit: .* 'cls_attn_blocks.0', 16 of width 32"),
        ('timm-xcit', DyT(), "DyT does not fit Xcit: .* 'cls_attn_blocks.0.mlp', 1 of width 32"),
        ('timm-xcit', CoDA(), 'CoDA does not fit Xcit: .* Leave block 2 out of `blocks`'),
        ('timm-hiera', ILA(), 'ILA needs the grid of the tokens, and those of Hiera form none'),
        ('timm-hiera', DyT(), 'DyT needs the grid of the tokens, and those of Hiera form none'),
        ('timm-hiera', DTL(), "DTL does not fit Hiera: .* 'blocks.2', 24 of width 64"),
        ('timm-mvitv2', Convpass(), "Convpass does not fit MultiScaleVit: .* 'stages.1.blocks.0"),
        ('timm-vit-22b', AdaptFormer(), "AdaptFormer does not fit .* 'blocks.0.k_norm', 32 tok"),
        ('timm-vit-things', AdaptFormer(), "AdaptFormer reads .* 'blocks.0' .* has none that is"),
        ('timm-vit-things', DyT(), "DyT reads the residual stream .* 'blocks.0' .* has none"),
    ],
)
def test_what_is_added_up_is_alike_or_is_refused(family, method, message):
    model = make(family)
    with pytest.raises((RuntimeError, ValueError), match=message):
        method.attach(model, probe=True)
    assert not method.attached


@pytest.mark.parametrize(
    'method', [Convpass(blocks=[0, 1]), READ(blocks=[0, 1]), DTL(start=0, blocks=[0, 1])]
)
def test_what_is_refused_fits_without_the_block_that_is_named(method):
    model = make('timm-cait').requires_grad_(False).train()
    method.attach(model, probe=True)
    outputs(model, torch.randn(2, 3, 24, 40)).sum().backward()
    assert any(p.grad.any() for _, p in method.trainable_parameters() if p.grad is not None)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'eva02_tiny_patch14_224'])
def test_a_grid_of_which_patches_are_dropped_is_refused(name):
    model = timm.create_model(name, **TIMM['vit'][1], patch_drop_rate=0.5)
    with pytest.raises(ValueError, match=r'Convpass needs the grid .* patch_drop_rate leaves'):
        Convpass().attach(model)
    LoRA(rank=2).attach(model, probe=True)
    model(torch.randn(2, 3, 24, 40)).sum().backward()


@pytest.mark.parametrize('family', ['timm-sam', 'timm-convnext', 'timm-davit'])
def test_methods_see_sequences_where_modules_see_maps(family):
    """One method at sublayers, one at norms, one at whole blocks: each starts as the identity."""
    images = torch.randn(2, 3, *size_of(family))
    for method in (
        Convpass(bottleneck=2, sites=['ffn']),
        SSF(std=0.0, sites=['norm', 'fc1']),
        LoReFT(rank=2),
    ):
        model = make(family)
        with torch.no_grad():
            before = outputs(model, images)
            method.attach(model, probe=True)
            method.eval()
            assert close(outputs(model, images), before, 2e-6)
        for _, parameter in method.trainable_parameters():
            torch.nn.init.normal_(parameter)
        assert not close(outputs(model, images), before, 1e-3)


@pytest.mark.parametrize(
    ('family', 'options'),
    [('timm-eva02', dict(dynamic_img_size=True)), ('timm-pvtv2', {}), ('timm-naflex', {})],
)
def test_the_grid_is_that_of_the_pass_whichever_method_begins_it(family, options):
    """Two sizes with as many tokens: as if the other had never been."""
    name, own = TIMM[family.removeprefix('timm-')]
    model = timm.create_model(name, **own, **options).eval()
    method = Convpass(bottleneck=2)
    method.attach(model)
    method.eval()
    for _, parameter in method.trainable_parameters():
        torch.nn.init.normal_(parameter)
    other = copy.deepcopy((model, method))[0]
    tall, wide = torch.randn(2, 3, 64, 96), torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        before = model(tall)
        expected = other.forward_intermediates(wide)[0]
        assert torch.equal(model.forward_intermediates(wide)[0], expected)
        assert torch.equal(model(tall), before)


@pytest.mark.parametrize(
    ('tokens', 'height', 'width', 'size'),
    [
        (196, 224, 224, (14, 14)),
        (234, 50, 70, (13, 18)),  # rounded up
        (15, 30, 47, (3, 5)),  # rounded down
        (7, 7, 1, (7, 1)),
        (49, 64, 96, None),  # a window
        (20, 64, 64, None),  # 4 x 5, or 5 x 4
        (0, 8, 8, None),
    ],
)
def test_the_grid_that_a_stride_makes(tokens, height, width, size):
    assert _grid(tokens, height, width) == size


def test_every_grid_of_every_stride_is_found():
    for stride in (4, 7, 14, 16):
        for height in range(32, 100, 9):
            for width in range(32, 150, 11):
                for rounded in (
                    (height // stride, width // stride),
                    (
                        -(-height // stride),
                        -(-width // stride),
                    ),
                ):
                    found = _grid(rounded[0] * rounded[1], height, width)
                    assert found in (rounded, None)


def test_an_architecture_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match="'bert': transformers has no image classifier of it"):
        MODELS.build(dict(type='TransformersBackbone', model_type='bert'))


@pytest.mark.parametrize(
    ('config', 'head'),
    [
        (dict(type='TorchvisionBackbone', model_name='swin_t'), 'head'),
        (dict(type='TorchvisionBackbone', model_name='vit_b_16', image_size=32), 'heads'),
    ],
)
def test_a_backbone_of_torchvision_by_its_name(config, head):
    with torch.device('meta'):
        backbone = MODELS.build(config)
    assert isinstance(backbone.model.get_submodule(head), torch.nn.Identity)
    assert find_layout(backbone).features == backbone.num_features == 768
