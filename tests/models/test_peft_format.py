"""LoRA in PEFT's format, both ways, against PEFT itself."""

import copy
import json
import math

import pytest
import timm
import torch
from backbones import CONFIGS, WIDTH
from torchvision.models import VisionTransformer

import gleam_mm
from gleam_mm.checkpoint import CheckpointError
from gleam_mm.petl import LoRA
from gleam_mm.registry import MODELS

peft = pytest.importorskip('peft')

TINY = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tiny(**options):
    torch.manual_seed(0)
    return timm.create_model('vit_tiny_patch16_224', **{**TINY, **options}).eval()


@torch.no_grad()
def changed(model):
    """The model with something learned."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def same(one, other):
    with torch.no_grad():
        torch.testing.assert_close(one(IMAGES), other(IMAGES), rtol=1e-5, atol=1e-5)
    return True


def test_a_parameter_of_an_attention_of_pytorch_is_refused(tmp_path):
    model = VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=32, mlp_dim=64)
    gleam_mm.attach(model, dict(type='LoRA', rank=2))
    with pytest.raises(ValueError, match='which PEFT adapts otherwise'):
        gleam_mm.save_peft(model, tmp_path / 'peft')
    assert not (tmp_path / 'peft').exists()


@pytest.mark.parametrize(
    'method',
    [
        dict(type='LoRA', rank=3, alpha=5.0),
        dict(type='LoRA', rank=2, sites=['proj', 'fc1', 'fc2'], blocks=[1]),
        dict(type='LoRA', rank=2, sites=['q', 'v']),
        dict(type='LoRA', rank=2, alpha=3.0, sites=['q', 'v', 'proj']),
        dict(type='LoRA', rank=2, sites=['blocks.0.attn.qkv', 'blocks.1.mlp.fc1']),
        dict(type='LoRA', rank=2, alpha=-4.0),
        dict(type='LoRA', rank=2, init='pissa'),
        dict(type='LoRA', rank=2, init='orthogonal', train_down=False),
        dict(type='DyLoRA', rank=2),
        dict(type='MLAE', rank=2),
        dict(type='ABBA', rank=2),
        dict(type='MSPLoRA', groups=2),
    ],
)
def test_peft_loads_what_we_write(method, tmp_path):
    model = tiny()
    gleam_mm.attach(model, method)
    changed(model)
    gleam_mm.save_peft(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny(), tmp_path)
    assert same(theirs, model)
    assert not same_as_pretrained(model)
    ours = tiny()
    gleam_mm.load_peft(ours, tmp_path)
    assert same(ours, model)


@pytest.mark.parametrize(
    'name', ['norm.weight', 'blocks.0.norm1.bias', 'patch_embed.proj.bias', 'blocks.1.mlp.fc1.bias']
)
def test_modules_are_saved_whole(name, tmp_path):
    model = tiny()
    gleam_mm.attach(model, dict(type='LoRA', rank=2))
    model.head.weight.requires_grad_(False)
    model.get_parameter(name).requires_grad_(True)
    changed(model)
    gleam_mm.save_peft(model, tmp_path)
    assert same(peft.PeftModel.from_pretrained(tiny(), tmp_path), model)
    ours = tiny()
    gleam_mm.load_peft(ours, tmp_path)
    assert same(ours, model)


def test_a_frozen_model_is_saved_with_its_head(tmp_path):
    model = tiny()
    gleam_mm.attach(model, dict(type='LoRA', rank=2))
    changed(model).requires_grad_(False)
    gleam_mm.save_peft(model, tmp_path / 'once')
    assert same(peft.PeftModel.from_pretrained(tiny(), tmp_path / 'once'), model)
    ours = tiny()
    gleam_mm.load_peft(ours, tmp_path / 'once')
    gleam_mm.save_peft(ours.requires_grad_(False), tmp_path / 'twice')
    assert same(peft.PeftModel.from_pretrained(tiny(), tmp_path / 'twice'), model)


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('cls_token', 'cls_token was trained, a parameter of no module but the model: PEFT saves'),
        ('blocks.0.attn.qkv.bias', r'of blocks\.0\.attn\.qkv, and blocks\.0\.attn\.qkv is adapted'),
        ('norm.bias', 'of norm, and PEFT would take blocks.*_norm for that as well'),
    ],
)
def test_what_peft_does_not_save_as_a_module_is_refused(name, told, tmp_path):
    model = tiny(qk_norm=name == 'norm.bias')
    gleam_mm.attach(model, dict(type='LoRA', rank=2))
    model.get_parameter(name).requires_grad_(True)
    with pytest.raises(ValueError, match=told):
        gleam_mm.save_peft(model, tmp_path / 'peft')
    assert not (tmp_path / 'peft').exists()


def test_dropout_goes_both_ways(tmp_path):
    theirs = peft.get_peft_model(
        tiny(), peft.LoraConfig(r=2, target_modules=['qkv'], lora_dropout=0.3)
    )
    theirs.save_pretrained(tmp_path / 'theirs')
    model = tiny()
    assert gleam_mm.load_peft(model, tmp_path / 'theirs').drop_rate == 0.3
    gleam_mm.save_peft(model, tmp_path / 'ours')
    again = peft.PeftModel.from_pretrained(tiny(), tmp_path / 'ours')
    assert again.peft_config['default'].lora_dropout == 0.3


def same_as_pretrained(model):
    with torch.no_grad():
        return torch.allclose(model(IMAGES), tiny()(IMAGES))


def classifier(head):
    torch.manual_seed(0)
    options = {k: v for k, v in TINY.items() if k != 'num_classes'}
    bare = dict(type='PooledTIMMBackbone', model_name='vit_tiny_patch16_224', **options)
    return MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=bare,
            head=dict(type=head, in_channels=WIDTH, num_classes=3),
            petl=dict(type='LoRA', rank=2),
            allow_random_backbone=True,
        )
    ).eval()


@pytest.mark.parametrize('head', ['CosineClsHead', 'RegressionHead', 'VisionTransformerClsHead'])
def test_a_head_that_timm_does_not_have_is_refused(head, tmp_path):
    with pytest.raises(ValueError, match=f'model.head is a {head}, which a model of timm'):
        gleam_mm.save_peft(classifier(head), tmp_path)


def test_a_classifier_on_a_backbone_of_timm(tmp_path):
    model = changed(classifier('LinearClsHead'))
    gleam_mm.save_peft(model, tmp_path)
    whole = tiny()
    whole.load_state_dict(model.backbone.timm_model.state_dict(), strict=False)
    assert same(peft.PeftModel.from_pretrained(whole, tmp_path), model)


def test_a_backbone_of_mmpretrain_alone(make_classifier, tmp_path):
    model = make_classifier('LoRA', rank=2).eval()
    changed(model)
    gleam_mm.save_peft(model, tmp_path)
    other = MODELS.build(copy.deepcopy(CONFIGS['vit']))
    other.load_state_dict(model.backbone.state_dict())
    other.eval()
    theirs = peft.PeftModel.from_pretrained(other, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(theirs(IMAGES)[-1], model.backbone(IMAGES)[-1])


@pytest.mark.parametrize(
    'options',
    [
        dict(r=3, lora_alpha=7, target_modules=['qkv'], modules_to_save=['head']),
        dict(r=2, target_modules=r'blocks\.0\.(attn\.proj|mlp\.fc[12])'),
        dict(r=4, target_modules=['qkv'], use_rslora=True),
    ],
)
def test_we_load_what_peft_writes(options, tmp_path):
    theirs = peft.get_peft_model(tiny(), peft.LoraConfig(**options))
    changed(theirs)
    theirs.save_pretrained(tmp_path)
    model = tiny()
    method = gleam_mm.load_peft(model, tmp_path)
    assert method.attached
    assert same(theirs.eval(), model)
    # And what was loaded is an ordinary adapter.
    gleam_mm.save(model, tmp_path / 'a.safetensors', options={k: TINY[k] for k in _OPTIONS})
    again = tiny()
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    assert same(again, model)


@pytest.fixture
def of_transformers():
    """Makes tiny ViTs of transformers, all with the same weights."""
    transformers = pytest.importorskip('transformers')

    def make():
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
        config = transformers.ViTConfig(
            **sizes, intermediate_size=64, image_size=32, patch_size=8, num_labels=3
        )
        return transformers.ViTForImageClassification(config).eval()

    return make


@pytest.mark.parametrize('targets', [['q_proj', 'v_proj'], ['q_proj', 'k_proj', 'v_proj']])
def test_models_of_transformers_both_ways(of_transformers, targets, tmp_path):
    if not any(name.endswith('q_proj') for name, _ in of_transformers().named_modules()):
        names = {'q_proj': 'query', 'k_proj': 'key', 'v_proj': 'value'}  # before transformers 5
        targets = [names[target] for target in targets]
    options = dict(r=2, target_modules=targets, modules_to_save=['classifier'])
    theirs = peft.get_peft_model(of_transformers(), peft.LoraConfig(**options))
    changed(theirs)
    theirs.save_pretrained(tmp_path / 'theirs')
    ours = of_transformers()
    gleam_mm.load_peft(ours, tmp_path / 'theirs')
    with torch.no_grad():
        expected = theirs.eval()(IMAGES).logits
        torch.testing.assert_close(ours(IMAGES).logits, expected)
        gleam_mm.save_peft(ours, tmp_path / 'ours')
        again = peft.PeftModel.from_pretrained(of_transformers(), tmp_path / 'ours')
        torch.testing.assert_close(again.eval()(IMAGES).logits, expected)


_OPTIONS = ('patch_size', 'embed_dim', 'depth', 'num_heads')


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (dict(peft_type='OFT'), "peft_type='OFT'; only LORA"),
        (dict(use_dora=True), 'use_dora=True is not loaded'),
        (dict(bias='all'), "bias='all'"),
        (dict(init_lora_weights='pissa_niter_4'), 'has changed the weights of the backbone'),
        (dict(init_lora_weights='lora_ga'), 'has changed the weights of the backbone'),
        (dict(alora_invocation_tokens=[1]), r'alora_invocation_tokens=\[1\] is not loaded'),
        (dict(of_a_later_version=True), 'of_a_later_version=True is not loaded'),
        (dict(r=0), r'adapter_config\.json: r=0: choose a whole number of at least 1'),
        (dict(lora_alpha=10**400), 'lora_alpha=1000.*: choose a finite number'),
        (dict(lora_alpha=math.nan), 'lora_alpha=nan: choose a finite number'),
        (dict(lora_dropout='much'), "lora_dropout='much': choose a number of at least 0 and below"),
    ],
)
def test_what_is_no_plain_lora_is_refused(change, told, tmp_path):
    model = tiny()
    gleam_mm.attach(model, 'lora')
    gleam_mm.save_peft(model, tmp_path)
    file = tmp_path / 'adapter_config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    other = tiny()
    with pytest.raises(CheckpointError, match=told):
        gleam_mm.load_peft(other, tmp_path)
    assert not hasattr(other, 'petl')


def test_a_folder_without_a_readable_config_is_named(tmp_path):
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'deep/adapter_config.json').write_text('[' * 100_000)
    with pytest.raises(FileNotFoundError, match='no such file; give a folder with adapter_config'):
        gleam_mm.load_peft(tiny(), tmp_path / 'nowhere')
    with pytest.raises(CheckpointError, match=r'deep.adapter_config\.json: no JSON'):
        gleam_mm.load_peft(tiny(), tmp_path / 'deep')


def test_the_lora_of_a_convolution_is_refused(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=['patch_embed.proj', 'qkv'])
    peft.get_peft_model(tiny(), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r'patch_embed\.proj is a convolution, and only'):
        gleam_mm.load_peft(tiny(), tmp_path)


@pytest.mark.parametrize('wrap', [torch.compile, torch.nn.DataParallel])
def test_a_model_that_is_wrapped(wrap, tmp_path):
    model = tiny()
    gleam_mm.attach(model, 'lora')
    gleam_mm.save_peft(wrap(changed(model)), tmp_path)
    ours = tiny()
    gleam_mm.load_peft(wrap(ours), tmp_path)
    assert same(ours, model)


def test_what_does_not_fit_leaves_the_model_alone(tmp_path):
    model = tiny()
    gleam_mm.attach(model, 'lora')
    gleam_mm.save_peft(model, tmp_path / 'whole')
    model.head.requires_grad_(False)
    gleam_mm.save_peft(model, tmp_path / 'headless')
    for folder, other, told in (
        ('whole', tiny(depth=1), 'no site blocks.1.attn.qkv'),
        ('whole', tiny(num_classes=5), r'head.bias has the shape \(3,\), but \(5,\)'),
        (
            'headless',
            tiny(embed_dim=16),
            'headless: .* size mismatch for local.blocks/0/',
        ),
    ):
        other.patch_embed.requires_grad_(False)
        state, learnt = copy.deepcopy(other.state_dict()), learning(other)
        with pytest.raises(CheckpointError, match=told):
            gleam_mm.load_peft(other, tmp_path / folder)
        assert not hasattr(other, 'petl')
        assert learning(other) == learnt
        assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    gleam_mm.attach(model := tiny(), 'lora')
    with pytest.raises(RuntimeError, match='has a method already'):
        gleam_mm.load_peft(model, tmp_path / 'whole')


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


class ShiftedLoRA(LoRA):
    """One of a user's, that adds something."""

    def adapt(self, site, x, y):
        return super().adapt(site, x, y) + 1


@pytest.mark.parametrize(
    ('method', 'told'),
    [
        (dict(type='LoRA', gate=True), 'LoRA has a gate of tokens'),
        (dict(type='KAdaptation', number=4), 'KAdaptation has a bias of the values'),
        (dict(type=ShiftedLoRA), 'ShiftedLoRA has its own adapt'),
    ],
)
def test_what_peft_has_no_place_for_is_refused(method, told, tmp_path):
    model = tiny()
    gleam_mm.attach(model, method)
    with pytest.raises(ValueError, match=f'{told}, which PEFT has no place for'):
        gleam_mm.save_peft(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_methods_are_refused(tmp_path):
    model = tiny()
    gleam_mm.attach(model, 'gleam-t')
    with pytest.raises(ValueError, match='GLEAM is no LoRA'):
        gleam_mm.save_peft(model, tmp_path)
    assert not list(tmp_path.iterdir())
