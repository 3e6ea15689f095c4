"""Updates of every kind of method against their formulas; and what is refused."""

import math
import weakref

import pytest
import torch
from conformance.cases import CASES
from torch.nn import functional as F

from gleam_mm.analysis import homogeneity
from gleam_mm.analysis.figures import adjacent_bars
from gleam_mm.analysis.homogeneity import NoUpdateError, UpdateProbe, measure, update_roles
from gleam_mm.analysis.similarity import SimilaritySums
from gleam_mm.analysis.subjects import AnalysisError

UPDATING = [
    case.name
    for case in CASES
    # Arrow chooses among LoRAs that are done; DyT and CoDA compute FFNs for some tokens alone.
    if case.name not in ('Linear probing', 'Arrow', 'DyT', 'CoDA')
]
KINDS = ['vit', 'swin', 'timm-vit', 'timm-swin']


def probed(subject, images, roles=None):
    with torch.no_grad(), UpdateProbe(subject, update_roles(subject.model.petl, roles)) as probe:
        features = subject.model.extract_feat(images)
        return probe, features, probe.take()


def inputs_of(subject, role, images):
    """Role's sites and what their modules are given, in front of the method's hooks."""
    seen = {}
    sites = UpdateProbe(subject, (role,)).sites[role]
    handles = [
        site.module.register_forward_pre_hook(
            lambda module, args, name=site.name: seen.setdefault(name, args[0].clone()),
            prepend=True,
        )
        for site in sites
    ]
    # A hook that returns something would replace the input: these return what they keep.
    with torch.no_grad():
        subject.model.extract_feat(images)
    for handle in handles:
        handle.remove()
    return [(site, seen[site.name]) for site in sites]


FORMULAS = {
    'LoRA': (
        'qkv',
        lambda own, site, x: (
            own.petl.scale * (x @ own.petl.local[site.key].down.T @ own.petl.local[site.key].up.T)
        ),
    ),
    'SSF': (
        'fc1',
        lambda own, site, x: (
            (own.petl.local[site.key].scale - 1) * site.module.forward(x)
            + own.petl.local[site.key].shift
        ),
    ),
    'RepAdapter': (
        'qkv',
        lambda own, site, x: (
            own.petl.scale
            * F.linear(
                F.linear(
                    own.petl.local[site.key].down(x),
                    own.petl.local[site.key].up_weight(),
                    own.petl.local[site.key].up_bias,
                ),
                site.module.weight,
            )
        ),
    ),
    'Adapter': (
        'fc2',
        lambda own, site, x: own.petl.local[site.key].up(
            F.gelu(own.petl.local[site.key].down(site.module.forward(x)))
        ),
    ),
    'GLEAM': (
        'proj',
        lambda own, site, x: own.petl.adapt(
            site, x, torch.zeros(*x.shape[:-1], site.module.out_features)
        ),
    ),
}


@pytest.mark.parametrize('name', FORMULAS)
def test_updates_are_those_of_the_formulas(name, make_subject, images):
    subject = make_subject(name)
    role, formula = FORMULAS[name]
    _, _, found = probed(subject, images, [role])
    frozen, updates = found[role]
    for (site, x), w0x, update in zip(
        inputs_of(subject, role, images), frozen, updates, strict=True
    ):
        with torch.no_grad():
            torch.testing.assert_close(w0x, site.module.forward(x), rtol=0, atol=0)
            torch.testing.assert_close(update, formula(subject.model, site, x), atol=1e-5, rtol=0)
        assert update.norm() > 1e-3


@pytest.mark.parametrize('name', ['Full tuning', 'BitFit'])
def test_tuned_weights_are_compared_with_those_of_before(name, make_subject, images):
    subject = make_subject(name)
    _, _, found = probed(subject, images, ['fc2'])
    for (site, x), update in zip(inputs_of(subject, 'fc2', images), found['fc2'][1], strict=True):
        before = subject.twin.get_submodule(site.name)
        with torch.no_grad():
            expected = F.linear(
                x, site.module.weight - before.weight, site.module.bias - before.bias
            )
        torch.testing.assert_close(update, expected, atol=1e-5, rtol=0)


def test_vpt_changes_what_the_other_tokens_get(make_subject, images):
    subject = make_subject('VPT-deep')
    _, _, found = probed(subject, images)
    (site, x), *_ = inputs_of(subject, 'block', images)
    prompts = subject.model.petl.prompts(site)[None].expand(2, -1, -1)
    block = subject.twin.layers[0]
    with torch.no_grad():
        with_prompts = block(torch.cat([x, prompts], 1))[:, : x.shape[1]]
        frozen, update = (side[0] for side in found['block'])
        torch.testing.assert_close(update, with_prompts - block(x), atol=1e-6, rtol=0)
        torch.testing.assert_close(frozen, block(x) - x, rtol=0, atol=0)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', UPDATING)
def test_every_method_and_backbone(name, kind, make_subject, images):
    subject = make_subject(name, kind)
    with torch.no_grad():
        before = subject.model.extract_feat(images)[-1]
    probe, features, found = probed(subject, images)
    torch.testing.assert_close(features[-1], before, rtol=0, atol=0)  # looking changes nothing
    for role, (frozen, updates) in found.items():
        assert len(frozen) == len(updates) == len(probe.sites[role]) >= 2
        for site, w0x, update in zip(probe.sites[role], frozen, updates, strict=True):
            assert w0x.shape == update.shape
            assert w0x.shape[0] == 2, site.name
            assert w0x.dim() == 3
        moved = [u.norm() > 1e-4 * w.norm() for w, u in zip(frozen, updates, strict=True)]
        assert any(moved)
    with torch.no_grad():
        torch.testing.assert_close(subject.model.extract_feat(images)[-1], before, rtol=0, atol=0)


@pytest.mark.parametrize('name', [case.name for case in CASES if case.identity][:3])
def test_the_twin_shares_what_is_frozen(name, make_subject):
    subject = make_subject(name)
    theirs = dict(subject.twin.named_parameters())
    for key, parameter in subject.model.backbone.named_parameters():
        assert (theirs[key] is parameter) == (not parameter.requires_grad)


def test_shifted_windows_are_compared_token_by_token(make_subject, images):
    """Two blocks with the same weights and input: only their windows differ."""
    subject = make_subject('LoRA', 'swin')
    first, second = subject.model.backbone.stages[0].blocks
    second.load_state_dict(first.state_dict())
    second.register_forward_pre_hook(lambda module, args: (kept[0], *args[1:]))
    kept = []
    first.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    assert second.attn.shift_size > 0
    twin = dict(subject.twin.named_parameters())
    assert twin['stages.0.blocks.1.attn.w_msa.qkv.weight'] is second.attn.w_msa.qkv.weight
    _, _, found = probed(subject, images, ['qkv'])
    torch.testing.assert_close(found['qkv'][0][0], found['qkv'][0][1])


def test_measure(make_subject):
    subject = make_subject('GLEAM')
    result = measure(subject, batch_size=6)
    assert set(result['roles']) == {'qkv', 'proj', 'fc1', 'fc2'}
    assert result['data'] == {
        'dataset': 'MiniVTAB digits',
        'split': 'test',
        'images': 24,
        'of': 24,
    }
    qkv = result['roles']['qkv']
    assert qkv['sites'] == ['layers.0.attn.qkv', 'layers.1.attn.qkv']
    for path in ('frozen', 'update'):
        assert qkv[path]['adjacent']['cosine'] == qkv[path]['cosine'][0][1]
        assert qkv[path]['cosine'][0][0] == pytest.approx(1)
        assert qkv[path]['l2'][0][0] == 0
        assert qkv[path]['norm'][0] > 0
    # qkv 3 d, proj d, fc1 4 d, fc2 d numbers for 17 tokens, two layers, both paths, 6 images.
    assert result['feature_bytes'] == 9 * 32 * 17 * 2 * 2 * 6 * 4
    assert result['accuracy']['source'] == '24 images of the test split'


def test_accuracy_is_that_of_the_adapter_where_it_has_one(make_subject):
    subject = make_subject('LoRA')
    subject.metrics = {'val': {'accuracy/top1': 50.0}, 'test': {'accuracy/top1': 61.5}}
    accuracy = measure(subject, max_images=8)['accuracy']
    assert accuracy['value'] == 61.5
    assert accuracy['source'] == 'test split, from the adapter file'
    assert 0 <= accuracy['measured'] <= 100


@pytest.mark.parametrize(
    ('task', 'named', 'known'),
    [
        ('digits', True, True),
        ('letters', True, False),
        ('letters', False, False),  # their number says it
    ],
)
def test_other_classes_have_no_accuracy(task, named, known, make_subject):
    subject = make_subject('LoRA')
    subject.metrics = {'test': {'accuracy/top1': 61.5}}
    subject.classes = subject.classes if named else None
    subject.cfg.test_dataloader.dataset.update(task=task, indices=8)
    result = measure(subject, ['qkv'])
    assert (result['accuracy'] is not None) == known
    drawn = adjacent_bars([result], 'qkv').axes[-1]
    assert ('other classes' in [text.get_text() for text in drawn.texts]) != known


def test_one_batch_of_features_is_held_at_a_time(make_subject, monkeypatch):
    subject = make_subject('LoRA', images=40)
    features, held = [], []
    update = SimilaritySums.update

    def watched(sums, maps):
        features.extend(map(weakref.ref, maps))
        update(sums, maps)

    def count(module, args):
        held.append(sum(feature() is not None for feature in features))

    monkeypatch.setattr(SimilaritySums, 'update', watched)
    subject.model.backbone.register_forward_pre_hook(count)
    measure(subject, ['qkv'], batch_size=4)
    assert len(features) == 10 * 2 * 2
    assert held == [0] * 10


@pytest.mark.parametrize('name', ['LoRA', 'GLEAM', 'Full tuning', 'RepAdapter', 'AdaptFormer'])
def test_a_method_at_its_start_has_no_update(name, make_subject):
    with pytest.raises(NoUpdateError, match=r'no update: .* give a trained checkpoint'):
        measure(make_subject(name, moved=False), max_images=8)


def test_ssf_does_not_start_as_the_pretrained_model(make_subject):
    roles = measure(make_subject('SSF', moved=False), max_images=8)['roles']
    assert roles['qkv']['without_update'] == []


def test_a_site_without_update_has_no_similarity(make_subject):
    subject = make_subject('LoRA')
    with torch.no_grad():
        subject.model.petl.local['layers/0/attn/qkv'].up.zero_()
    qkv = measure(subject, ['qkv'], max_images=8)['roles']['qkv']
    assert qkv['without_update'] == ['layers.0.attn.qkv']
    assert math.isnan(qkv['update']['adjacent']['cosine'])
    assert math.isnan(qkv['update']['l2'][0][1])
    assert qkv['update']['cosine'][1][1] == pytest.approx(1)


def test_stages_of_other_widths_are_compared_by_cka_alone(make_subject):
    role = measure(make_subject('GLEAM', 'swin'), ['fc1'])['roles']['fc1']
    assert role['stages'] == [0, 0, 1, 1]
    assert math.isnan(role['update']['cosine'][1][2])
    assert math.isnan(role['update']['l2'][1][2])
    assert math.isfinite(role['update']['cka'][1][2])
    cosine = role['update']['cosine']
    assert role['update']['adjacent']['cosine'] == pytest.approx((cosine[0][1] + cosine[2][3]) / 2)


def test_what_has_no_updates_is_refused(make_subject):
    with pytest.raises(NoUpdateError, match='LinearProbe has no updates: it trains the head alone'):
        measure(make_subject('Linear probing'))
    with pytest.raises(NoUpdateError, match=r'LoRA has no update at proj; choose .* qkv, fc2'):
        measure(make_subject('LoRA'), ['proj'])
    assert issubclass(NoUpdateError, AnalysisError)


def test_default_roles(make_subject):
    roles = {
        name: update_roles(make_subject(name).model.petl)
        for name in ('Full tuning', 'AdaptFormer', 'Convpass', 'SSF')
    }
    linears = ('qkv', 'proj', 'fc1', 'fc2')
    assert roles == {
        'Full tuning': linears,
        'AdaptFormer': ('block',),
        'Convpass': ('attn', 'ffn'),
        'SSF': linears,
    }
    assert update_roles(make_subject('BitFit').model.petl, ['block']) == ('block',)
    assert set(homogeneity.ROLES) >= set(linears)
