"""HFPeft against PEFT itself, which replaces the Linears of a copy of the same backbone."""

import copy
import io
import sys

import peft
import pytest
import torch
from backbones import BACKBONES, evaluating
from mmpretrain.models import VisionTransformer

from gleam_mm.petl import HFPeft, MergeError

pytestmark = pytest.mark.filterwarnings('ignore:Specified to not save vera_A')

SITES = ('qkv', 'fc2')
TUNERS = {
    'LoRA': dict(peft_type='LORA', r=4, lora_alpha=8),
    'DoRA': dict(peft_type='LORA', r=4, use_dora=True),
    'VeRA': dict(peft_type='VERA', r=8),
    'VeRA from its seed': dict(peft_type='VERA', r=8, save_projection=False),
    'IA3': dict(peft_type='IA3', feedforward_modules=['fc2']),
    'OFT': dict(peft_type='OFT', r=0, oft_block_size=8),
    'LoHa': dict(peft_type='LOHA', r=4),
    'LoKr': dict(peft_type='LOKR', r=4),
    'RandLoRA': dict(peft_type='RANDLORA', r=8),
    'VB-LoRA': dict(peft_type='VBLORA', r=2, num_vectors=16, vector_length=16),
    'PVeRA': dict(peft_type='PVERA', r=8),
    'BOFT': dict(peft_type='BOFT', boft_block_size=8),
    'HRA': dict(peft_type='HRA', r=4),
    'RoAd': dict(peft_type='ROAD', group_size=8),
    'HiRA': dict(peft_type='HIRA', r=4),
    'FourierFT': dict(peft_type='FOURIERFT', n_frequency=20, scaling=10.0),
    'C3A': dict(peft_type='C3A', block_size=16),
    'MiSS': dict(peft_type='MISS', r=4),
    'SHiRA': dict(peft_type='SHIRA', r=2),
}

MORE = {**TUNERS, 'Lily': dict(peft_type='LILY')}  # its layers share parameters among themselves


def attached(backbone, config, sites=SITES):
    method = HFPeft(config, sites).eval()
    method.attach(backbone)
    return method


def randomize(method):
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def by_peft(backbone, config, names):
    """PEFT's own model around a copy of a backbone."""
    options = {key: value for key, value in config.items() if key != 'peft_type'}
    if 'feedforward_modules' in options:
        options['feedforward_modules'] = [n for n in names if n.endswith(('layers.1', 'fc2'))]
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[config['peft_type']](target_modules=names, **options)
    model = peft.get_peft_model(copy.deepcopy(backbone), config)
    model.eval()
    return model


@pytest.mark.parametrize('name', TUNERS)
def test_equals_peft(name, backbone, images):
    plain = copy.deepcopy(backbone)
    method = attached(backbone, TUNERS[name])
    randomize(method)
    sites = method.layout.sites(SITES)
    reference = by_peft(plain, TUNERS[name], [site.name for site in sites])
    layers = [reference.base_model.model.get_submodule(site.name) for site in sites]
    for site, layer in zip(sites, layers, strict=True):
        layer.load_state_dict(method.local[site.key].state_dict(), strict=False)
    for key, module in method.shared.items():
        getattr(reference.base_model, key).load_state_dict(module.state_dict())
    ours, theirs = backbone(images)[0], reference(images)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert not torch.allclose(ours, plain(images)[0], rtol=0, atol=1e-4)

    backbone.requires_grad_(False)
    weights = torch.randn_like(ours)
    (backbone(images)[0] * weights).sum().backward()
    (reference(images)[0] * weights).sum().backward()
    trained = dict(method.trainable_parameters())
    assert len(trained) == len([p for p in reference.parameters() if p.requires_grad])
    for site, layer in zip(sites, layers, strict=True):
        theirs = dict(layer.named_parameters())
        for key, parameter in method.local[site.key].named_parameters():
            torch.testing.assert_close(parameter.grad, theirs[key].grad, rtol=1e-4, atol=1e-5)
    for key, parameter in method.shared.named_parameters():
        grad = reference.base_model.get_parameter(key).grad
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-5)


def test_what_is_built_evaluates_with_its_method(vit, images):
    vit.eval()
    method = attached(vit, dict(TUNERS['LoRA'], lora_dropout=0.5))
    randomize(method)
    assert torch.equal(vit(images)[0], vit(images)[0])


@pytest.mark.parametrize('name', MORE)
def test_owns_what_it_adds_and_nothing_else(name, backbone):
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    method = attached(backbone, MORE[name])
    theirs = {id(tensor) for tensor in (*backbone.parameters(), *backbone.buffers())}
    owned = [*method.parameters(), *method.buffers()]
    assert not theirs & {id(tensor) for tensor in owned}
    saved = method.state_dict()
    assert all(torch.equal(backbone.state_dict()[key], state[key]) for key in state)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    declared = {id(t) for name, t in method.named_buffers() if name in saved}
    numbers = sum(tensor.numel() for tensor in owned if id(tensor) in declared)
    numbers += sum(parameter.numel() for _, parameter in method.trainable_parameters())
    assert sum(tensor.numel() for tensor in saved.values()) == numbers


@pytest.mark.parametrize('name', MORE)
def test_a_saved_tuner_loads_into_another(name, vit, images):
    method = attached(vit, MORE[name])
    randomize(method)
    for key, buffer in method.named_buffers():
        computed = 'boft_P' in key or 'seed' in name
        if buffer.is_floating_point() and not computed:
            buffer.normal_()  # as if PyTorch drew other numbers from the same seed
    expected = vit(images)[0]
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    method.detach()
    other = attached(vit, MORE[name])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(vit(images)[0], expected)


@pytest.mark.parametrize('name', ['DoRA', 'VB-LoRA'])
def test_a_copy_of_both_is_tied_to_itself(name, vit, images):
    method = attached(vit, TUNERS[name])
    randomize(method)
    expected = vit(images)[0]
    twin_vit, twin = copy.deepcopy((vit, method))
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
    assert torch.equal(twin_vit(images)[0], expected)
    key = 'layers/0/attn/qkv'
    base = twin.local[key].base_layer
    assert base.weight.data_ptr() == twin_vit.layers[0].attn.qkv.weight.data_ptr()
    shared = list(twin.shared.parameters())
    assert len(shared) == (name == 'VB-LoRA')
    if shared:
        bank = twin.shared['vblora_vector_bank']
        assert all(layer.vblora_vector_bank is bank for layer in twin.local.values())


def test_follows_the_backbone_s_weights(vit, images):
    method = attached(vit, TUNERS['DoRA'])
    randomize(method)
    expected = vit(images)[0]
    state = {key: value.clone() for key, value in vit.state_dict().items()}
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
    vit.load_state_dict(state, assign=True)  # new parameters in place of the old ones
    assert torch.equal(vit(images)[0], expected)
    vit.double(), method.double()
    torch.testing.assert_close(vit(images.double())[0].float(), expected)


@pytest.mark.parametrize('name', TUNERS)
def test_merges_as_peft_does(name, vit, images):
    original = {key: value.clone() for key, value in vit.state_dict().items()}
    method = attached(vit, TUNERS[name])
    randomize(method)
    with torch.no_grad():
        expected = vit(images)[0]
        method.merge()
        assert 'forward' not in vars(vit.layers[0].attn.qkv)
        torch.testing.assert_close(vit(images)[0], expected, rtol=0, atol=1e-5)
        method.unmerge()
        assert torch.equal(vit(images)[0], expected)
    method.detach()
    assert all(torch.equal(vit.state_dict()[key], original[key]) for key in original)


def test_says_why_a_tuner_cannot_be_merged(vit):
    method = attached(vit, dict(peft_type='LILY'))
    with pytest.raises(MergeError, match=r"PEFT's LILY refuses: .*not supported"):
        method.merge()


@pytest.mark.parametrize('name', MORE)
def test_a_classifier_s_checkpoint_has_each_number_once(name, make_classifier):
    options = dict(config=MORE[name], sites=SITES)
    model, other = (make_classifier('HFPeft', **options) for _ in range(2))
    randomize(model.petl)
    state = model.state_dict()
    other.load_state_dict(state)
    for key, value in other.petl.state_dict().items():
        assert torch.equal(value, state[f'petl.{key}'])
    assert len({value.data_ptr() for value in state.values()}) == len(state)


def count(config, sites=('qkv',)):
    method = attached(VisionTransformer('b'), config, sites)
    total = sum(parameter.numel() for _, parameter in method.trainable_parameters())
    parts = (*method.shared.parameters(), *method.local.parameters())
    assert sum(parameter.numel() for parameter in parts) == total
    return total


def test_parameters_on_vit_b():
    with torch.device('meta'):
        assert count(dict(peft_type='LORA', r=8)) == 12 * 8 * (768 + 3 * 768) == 294_912
        dora = dict(peft_type='LORA', r=8, use_dora=True)
        assert count(dora) == 12 * (8 * (768 + 3 * 768) + 3 * 768)
        assert count(dict(peft_type='IA3', feedforward_modules=['fc2']), SITES) == 12 * 7 * 768
        assert count(dict(peft_type='VERA', r=256)) == 12 * (256 + 3 * 768)
        bank = dict(peft_type='VBLORA', r=4, num_vectors=90, vector_length=256)
        assert count(bank) == 90 * 256 + 12 * 4 * (3 + 9) * 90


def test_roles_of_feedforward_modules(vit):
    method = attached(vit, TUNERS['IA3'])
    sizes = {key: layer.ia3_l['default'].numel() for key, layer in method.local.items()}
    # Of qkv the output is scaled; of fc2, as a feed-forward module, the input.
    assert sizes['layers/0/attn/qkv'] == 3 * 32
    assert sizes['layers/0/ffn/layers/1'] == 4 * 32


def test_options_name_modules_as_the_backbone_does(vit):
    config = dict(peft_type='LORA', r=4, rank_pattern={r'layers\.1\.attn\.qkv': 2})
    method = attached(vit, config)
    ranks = {key: layer.r['default'] for key, layer in method.local.items() if 'qkv' in key}
    assert ranks == {'layers/0/attn/qkv': 4, 'layers/1/attn/qkv': 2}


@pytest.mark.parametrize(
    'config, message',
    [
        (dict(), 'peft_type=None is no tuner that adapts Linears; this version of PEFT has'),
        (dict(peft_type='LORRA'), "peft_type='LORRA' is no tuner"),
        (dict(peft_type='PREFIX_TUNING'), "peft_type='PREFIX_TUNING' is no tuner"),
        (dict(peft_type='ADALORA'), 'ADALORA.*the training loop would have to tell it'),
        *(
            (
                dict(peft_type='LORA', init_lora_weights=start),
                f"LORA with init_lora_weights='{start}' does not work here: nothing here takes the",
            )
            for start in ('eva', 'corda', 'lora_ga')
        ),
        (
            dict(peft_type='LORA', alora_invocation_tokens=[1]),
            r'alora_invocation_tokens=\[1\] does not work here: images have no tokens',
        ),
        (dict(peft_type='LORA', monteclora_config=dict(k=1)), 'monteclora_config=.* its loss'),
        (dict(peft_type='LORA', arrow_config=dict(top_k=1)), 'arrow_config=.* finished adapters'),
        (dict(peft_type='ADAMSS', use_asa=True), 'use_asa=True does not work here: the training'),
        (dict(peft_type='LORA', rank=4), "LORA has no option 'rank'; it has .*, r, "),
        (dict(peft_type='LORA', target_modules=['qkv']), "leave out 'target_modules': name roles"),
        (dict(peft_type='LORA', bias='all'), "bias='all' would train the backbone's biases"),
        (dict(peft_type='IA3', feedforward_modules=['fc1']), r'roles among `sites` \(qkv\), not'),
    ],
)
def test_bad_configs_are_named(config, message):
    with pytest.raises(ValueError, match=f'config of HFPeft: .*{message}'):
        HFPeft(config)


def test_options_that_only_say_what_is_so_are_taken():
    HFPeft(dict(peft_type='LORA', init_lora_weights='gaussian', eva_config=None))
    HFPeft(dict(peft_type='ADAMSS', use_asa=False))


def test_frod_needs_one_width():
    swin = evaluating(BACKBONES['swin']())
    with pytest.raises(ValueError, match=r'one token width; this backbone has 16, 32\. Name the'):
        HFPeft(dict(peft_type='FROD')).attach(swin)
    HFPeft(dict(peft_type='FROD'), blocks=[0, 1]).attach(swin)


def test_what_does_not_fit_the_backbone_is_named(vit, images):
    with pytest.raises(ValueError, match=r"'layers.0.ffn' .* a mmcv.*\.FFN;"):
        attached(vit, dict(peft_type='LORA'), ('ffn',))
    with pytest.raises(ValueError, match=r'C3A does not fit the sites qkv: .*block size'):
        attached(vit, dict(peft_type='C3A', block_size=7), ('qkv',))


@pytest.mark.parametrize('start', ['pissa', 'olora'])
def test_a_tuner_must_leave_the_backbone_s_weights_alone(start, vit, images):
    expected = vit(images)[0]
    method = HFPeft(dict(peft_type='LORA', r=4, init_lora_weights=start))
    with pytest.raises(ValueError, match="changes the backbone's own weights when it starts"):
        method.attach(vit)
    assert not method.attached
    assert torch.equal(vit(images)[0], expected)


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    with pytest.raises(ImportError, match=r"pip install 'gleam-mm\[peft\]'"):
        HFPeft(dict(peft_type='LORA'))
