"""Queries, keys and values alone, and single sites by their names."""

import pytest
import torch
from backbones import BACKBONES, evaluating
from layouts.backbone_table import close, make, outputs

from gleam_mm.layouts import find_layout
from gleam_mm.petl import GLEAM, SSF, Compose, FacT, KAdaptation, LoRA, RepAdapter, SLoRA
from gleam_mm.petl.attachments import MergeError


def parts_of(backbone, *roles):
    return find_layout(backbone).sites(roles)


@pytest.mark.parametrize('kind', BACKBONES)
def test_parts_are_the_thirds_of_qkv(kind):
    sites = parts_of(BACKBONES[kind](), 'q', 'k', 'v')
    for q, k, v in zip(sites[::3], sites[1::3], sites[2::3], strict=True):
        width = q.width
        assert [site.role for site in (q, k, v)] == ['q', 'k', 'v']
        assert [site.rows for site in (q, k, v)] == [
            slice(i * width, (i + 1) * width) for i in range(3)
        ]
        assert q.module is k.module is v.module
        assert (q.name, q.path) == (f'{q.path}.q', k.path)
        assert torch.equal(torch.cat([site.weight for site in (q, k, v)]), q.module.weight)
        assert torch.equal(torch.cat([site.bias for site in (q, k, v)]), q.module.bias)


@pytest.mark.parametrize('kind', BACKBONES)
@torch.no_grad()
def test_lora_of_queries_and_values_is_two_low_rank_updates(kind, images):
    """The literal update, written into a copy's weights."""
    backbone, plain = (evaluating(BACKBONES[kind]()) for _ in range(2))
    plain.load_state_dict(backbone.state_dict())
    before = outputs(plain, images)
    method = LoRA(rank=2, alpha=6, sites=('q', 'v'))
    method.attach(backbone, probe=True)
    widths = [site.width for site in parts_of(plain, 'q')]
    assert sum(p.numel() for p in method.parameters()) == sum(2 * 2 * 2 * d for d in widths)
    assert torch.equal(outputs(backbone, images), before)
    for pair in method.local.values():
        torch.nn.init.normal_(pair.up)
    for site in parts_of(plain, 'qkv'):
        for start, part in ((0, 'q'), (2 * site.width, 'v')):
            pair = method.local[f'{site.key}/{part}']
            site.module.weight[start : start + site.width] += 3 * pair.up @ pair.down
    expected = outputs(plain, images)
    assert not close(expected, before, 1e-2)
    assert close(outputs(backbone, images), expected, 1e-5)
    weights = [site.module.weight.clone() for site in parts_of(backbone, 'qkv')]
    method.merge()
    assert close(outputs(backbone, images), expected, 1e-5)
    method.unmerge()
    for site, weight in zip(parts_of(backbone, 'qkv'), weights, strict=True):
        assert torch.equal(site.module.weight, weight)


@pytest.mark.parametrize('family', ['timm-eva02', 'timm-eva', 'timm-pvtv2', 'timm-tnt', 'mm-beit'])
def test_parts_where_they_are_apart_otherwise(family):
    """Linears of their own, two in one, or one whose attention adds the biases itself."""
    model = make(family)
    roles = {'q', 'k', 'v'}
    whole = sum(site.out_features for site in parts_of(model, 'qkv'))
    assert sum(site.out_features for site in parts_of(model, *roles)) == whole
    images = torch.randn(2, 3, *find_layout(model).image_shape()[1:])
    method = LoRA(rank=2, sites=('q', 'v'))
    method.attach(model, probe=True)
    outputs(model, images).mean().backward()
    assert all(p.up.grad.any() for p in method.local.values())
    keys = {site.module for site in parts_of(model, 'k')} - {
        s.module for s in method.sites.values()
    }
    assert all(not module._forward_hooks for module in keys)


def test_rank_and_alpha_by_role(vit, images):
    queries, values = LoRA(rank=2, sites=('q',)), LoRA(rank=4, alpha=2, sites=('v',))
    method = Compose(dict(of_q=queries, of_v=values))
    method.attach(evaluating(vit))
    assert {pair.down.shape[0] for pair in queries.local.values()} == {2}
    assert {pair.down.shape[0] for pair in values.local.values()} == {4}
    with torch.no_grad():
        for part in (queries, values):
            for pair in part.local.values():
                torch.nn.init.normal_(pair.up)
        adapted = outputs(vit, images)
        method.merge()
        assert close(outputs(vit, images), adapted, 1e-5)


@pytest.mark.parametrize(
    'method',
    [
        GLEAM(rank=2, sites=('q', 'v', 'fc1')),
        SLoRA(rank=2, sites=('k',)),
        FacT(rank=2, sites=('v', 'proj')),
        SSF(sites=('q', 'norm')),
    ],
)
def test_other_methods_take_parts(method, vit, images):
    before = outputs(evaluating(vit), images)
    method.attach(vit, probe=True)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    adapted = outputs(vit, images)
    assert adapted.shape == before.shape
    assert not close(adapted, before, 1e-3)
    with torch.no_grad():
        try:
            method.merge()
        except MergeError:
            assert isinstance(method, GLEAM)
        assert close(outputs(vit, images), adapted, 1e-5)


def test_single_sites_by_name(vit):
    names = [site.name for site in parts_of(vit, 'layers.1.attn.qkv', '*.ffn.layers.1')]
    assert names == ['layers.0.ffn.layers.1', 'layers.1.attn.qkv', 'layers.1.ffn.layers.1']
    (values,) = parts_of(vit, 'layers.0.attn.qkv.v')
    assert values.rows == slice(64, 96)
    method = LoRA(rank=2, sites=('layers.0.attn.qkv.v', 'fc1'), blocks=[0])
    method.attach(vit)
    assert list(method.local) == ['layers/0/attn/qkv/v', 'layers/0/ffn/layers/0/0']


def test_what_is_whole_is_not_adapted_in_part_as_well(vit):
    assert [site.role for site in parts_of(vit, '*.attn.qkv*')] == ['qkv', 'qkv']
    assert [site.role for site in parts_of(vit, 'layers.0.attn.qkv', 'q')] == ['qkv', 'q']


@pytest.mark.parametrize('sites', [('qkv', 'q'), ('q', 'qkv'), ('qkv', '*.q')])
def test_a_part_that_would_do_nothing_beside_the_whole_is_refused(sites, vit):
    with pytest.raises(ValueError, match=r"q' is a part of what others of them name as a whole"):
        LoRA(sites=sites).attach(vit)


def test_what_cannot_be_is_refused(vit):
    with pytest.raises(ValueError, match=r"no site with the name 'blocks\.0\.\*'; .* like 'layers"):
        LoRA(sites=('blocks.0.*',)).attach(vit)
    with pytest.raises(ValueError, match=r"RepAdapter acts on all that 'layers\.0\.attn\.qkv'"):
        RepAdapter(sites=('q',)).attach(vit)
    with pytest.raises(ValueError, match=r"no site with the role 'q'; its roles are: .*qkv"):
        LoRA(sites=('q',)).attach(make('timm-tinyvit'))
    with pytest.raises(ValueError, match='KAdaptation adapts queries and values of a fused qkv'):
        KAdaptation().attach(make('timm-eva02'))
