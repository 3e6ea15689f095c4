"""Layouts list the right sites and tell the right grid."""

from functools import partial

import pytest
import torch
from backbones import BACKBONES, WIDTH, evaluating
from mmpretrain.models import ConvNeXt
from torch import nn
from torch.utils.checkpoint import checkpoint

from gleam_mm.layouts import LINEAR_ROLES, ROLES, Block, Grid, Layout, find_layout
from gleam_mm.petl import SSF, Convpass
from gleam_mm.registry import LAYOUTS, MODELS


def test_every_backbone_has_every_role(backbone):
    layout = find_layout(backbone)
    always = [role for role in ROLES if role != 'downsample']
    sites = layout.sites(ROLES if layout.windowed else always)
    roles = [site.role for site in sites]
    blocks = roles.count('block')
    assert {role: roles.count(role) for role in always} == {
        'patch_embed': 1,
        'block': blocks,
        'norm': 2 * blocks + 1,
        **dict.fromkeys(('attn', 'ffn', *LINEAR_ROLES), blocks),
    }
    assert [site.block for site in sites if site.role == 'qkv'] == list(range(blocks))
    for site in sites:
        assert backbone.get_submodule(site.name) is site.module


def test_linear_sites_count_their_blocks(backbone):
    blocks = {'qkv': (1, 3), 'proj': (1, 1), 'fc1': (1, 4), 'fc2': (4, 1)}
    for site in find_layout(backbone).sites(LINEAR_ROLES):
        assert (site.blocks_in, site.blocks_out) == blocks[site.role]
        smaller = min(site.module.in_features, site.module.out_features)
        assert smaller == site.width


def test_grid_fits_the_tokens_of_every_linear(backbone, images):
    layout = find_layout(backbone)
    handles = layout.track_grid()
    fits = []

    def compare(site):
        def hook(module, args):
            grid = layout.grid(site)
            fits.append(args[0].shape[1] == grid.prefix + grid.height * grid.width)

        return hook

    for site in layout.sites(LINEAR_ROLES):
        handles.append(site.module.register_forward_pre_hook(compare(site)))
    backbone(images)
    assert fits
    assert all(fits)
    for handle in handles:
        handle.remove()


def test_grid_follows_the_size_of_the_image(vit):
    layout = find_layout(vit)
    layout.track_grid()
    site = layout.sites(['qkv'])[0]
    vit(torch.randn(1, 3, 48, 16))
    assert layout.grid(site) == Grid(1, 6, 2)
    vit(torch.randn(1, 3, 32, 32))
    assert layout.grid(site) == Grid(1, 4, 4)


@pytest.mark.parametrize('kind', BACKBONES)
@torch.no_grad()
def test_the_grid_says_where_a_patch_is(kind):
    """On an image that is wider than high, a patch that was changed is the token at its place."""
    options = {'timm-vit': dict(dynamic_img_size=True), 'timm-swin': dict(strict_img_size=False)}
    backbone = evaluating(BACKBONES[kind](**options.get(kind, {})))
    layout = find_layout(backbone)
    handles, seen = layout.track_grid(), {}
    first_of_stage = {site.stage: site for site in reversed(layout.sites(['block']))}
    for stage, site in first_of_stage.items():

        def keep(module, args, stage=stage, site=site):
            seen[stage] = layout.grid(site), args[0].flatten(1, -2)

        handles.append(site.module.register_forward_pre_hook(keep))
    plain = torch.randn(1, 3, 32, 64)
    changed = plain.clone()
    changed[:, :, 8:16, 40:48] += 1  # one patch of the ViT, and 2 x 2 tokens of Swin's last stage
    backbone(plain)
    before = dict(seen)
    backbone(changed)
    for stage, (grid, tokens) in seen.items():
        moved = (tokens - before[stage][1]).abs().amax((0, 2))[grid.prefix :]
        there = (moved > 1e-6).view(grid.height, grid.width).nonzero()
        top, left, bottom, right = *there.amin(0), *there.amax(0)
        assert (grid.height, grid.width) == (grid.width // 2, grid.height * 2)
        if stage == 0:
            assert (top / grid.height, left / grid.width) == (8 / 32, 40 / 64)
            assert ((bottom + 1) / grid.height, (right + 1) / grid.width) == (16 / 32, 48 / 64)
        else:  # attention has spread what was changed within windows
            assert grid.tokens == tokens.shape[1]
    for handle in handles:
        handle.remove()


def test_grid_is_unknown_before_the_first_pass(vit):
    layout = find_layout(vit)
    with pytest.raises(RuntimeError, match=r"grid at 'layers.0.attn.qkv' is not known yet"):
        layout.grid(layout.sites(['qkv'])[0])


@pytest.mark.parametrize('reentrant', [False, True])
def test_a_part_that_is_computed_again_has_the_grid_of_its_own_pass(reentrant):
    """Two passes of other images behind each other; or before one backward pass, in words."""
    model = BACKBONES['timm-vit'](dynamic_img_size=True).requires_grad_(False)
    method = Convpass(bottleneck=2, drop_rate=0.0)
    method.attach(model)
    for _, parameter in method.trainable_parameters():
        nn.init.normal_(parameter)
    wide, tall = (torch.randn(1, 3, *size, requires_grad=True) for size in ((32, 48), (48, 32)))

    def loss(images):
        return model(images)[-1].square().sum()

    def gradients():
        method.zero_grad()
        loss(wide).backward()
        awaited = loss(tall)
        with torch.no_grad():
            loss(wide)
        awaited.backward()
        return [parameter.grad.clone() for _, parameter in method.trainable_parameters()]

    expected = gradients()
    for block in model.timm_model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=reentrant)
    torch.testing.assert_close(gradients(), expected)
    both = loss(wide) + loss(tall)
    with pytest.raises(RuntimeError, match=r'checkpointing .* Call backward\(\) after each'):
        both.backward()
    torch.testing.assert_close(gradients(), expected)


def test_unknown_role_lists_the_roles(vit):
    with pytest.raises(ValueError, match="no site with the role 'query'; its roles are: patch_emb"):
        find_layout(vit).sites(['query'])


def test_missing_role_is_an_error():
    """A ConvNeXt has no attention, and no other module takes its place."""
    convnext = ConvNeXt(dict(depths=[1] * 4, channels=[8] * 4))
    with pytest.raises(ValueError, match="no site with the role 'qkv'; its roles are: block, fc1"):
        find_layout(convnext).sites(['qkv'])


def test_a_backbone_of_convolutions_is_refused():
    convnext = ConvNeXt(dict(depths=[1] * 4, channels=[8] * 4), linear_pw_conv=False)
    with pytest.raises(ValueError, match=r'ConvNeXt .* has no Linear in stages.*convolutions'):
        find_layout(convnext)


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)


def test_a_layout_can_come_from_outside():
    @LAYOUTS.register_module()
    class MixerLayout(Layout):
        block_roles = {'proj': ('fc',)}

        @classmethod
        def supports(cls, backbone):
            return isinstance(backbone, nn.Sequential) and isinstance(backbone[0], Mixer)

        def blocks(self):
            for index in range(len(self.backbone)):
                yield Block(str(index), 0, 8)

        def track_grid(self):
            return []

    try:
        sites = find_layout(nn.Sequential(Mixer(), Mixer())).sites(['proj'])
        assert [site.name for site in sites] == ['0.fc', '1.fc']
    finally:
        LAYOUTS.module_dict.pop('MixerLayout')


@pytest.mark.parametrize('kind', ['swin', 'timm-vit', 'timm-swin'])
def test_its_neck_pools_what_the_backbone_returns(kind, images):
    backbone = BACKBONES[kind]()
    neck = MODELS.build(dict(find_layout(backbone).neck))
    assert neck(backbone(images))[-1].shape == (len(images), WIDTH)


def test_a_site_without_weight_or_block_says_so(vit):
    with pytest.raises(ValueError, match=r"'layers\.0' \(role 'block'\) has no weight of its own"):
        SSF(sites=['block']).attach(vit)
    (embedding,) = find_layout(vit).sites(('patch_embed',))
    with pytest.raises(ValueError, match=r"'patch_embed' .* is outside of the blocks"):
        embedding.index  # noqa: B018
