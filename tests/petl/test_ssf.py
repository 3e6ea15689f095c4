"""SSF against its formula, its parameter count, its start and its merge."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.petl import SSF


def frozen(module, x):
    if isinstance(module, nn.Conv2d):
        return F.conv2d(x, module.weight, module.bias, module.stride)
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)
    return F.linear(x, module.weight, module.bias)


@pytest.mark.parametrize('bfloat16', [False, True])
def test_every_site_follows_the_formula(bfloat16, backbone, images):
    """h = gamma * y + beta, channel by channel; in bfloat16, rounded once behind it all."""
    seen = []
    method = SSF(std=0.5)
    method.attach(backbone)
    own = {site.affine: method.local[site.key] for site in method.layout.sites(method.roles)}
    for module in own:
        module.register_forward_hook(lambda *call: seen.append(call))
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
        backbone(images)
        assert len(seen) == len(own) > 0
        for module, (x,), adapted in seen:
            channels = 1 if isinstance(module, nn.Conv2d) else -1
            gamma, beta = own[module].scale.flatten(), own[module].shift.flatten()
            y = frozen(module, x).movedim(channels, -1)
            expected = (y * gamma + beta).to(y.dtype)
            tolerance = 1e-5 if y.dtype == torch.float32 else 2**-8  # of bfloat16: one last digit
            torch.testing.assert_close(
                adapted.movedim(channels, -1), expected, rtol=tolerance, atol=1e-5
            )
        assert bfloat16 == any(adapted.dtype == torch.bfloat16 for *_, adapted in seen)


def test_the_patch_embedding_is_adapted_behind_its_norm_where_it_has_one(backbone):
    method = SSF(sites=('patch_embed',))
    method.attach(backbone)
    (site,) = method.layout.sites(('patch_embed',))
    (own,) = method.local.values()
    has_norm = 'Swin' in type(method.layout).__name__
    assert isinstance(site.affine, nn.LayerNorm if has_norm else nn.Conv2d)
    assert own.scale.numel() == site.width


def test_parameters_on_vit_b():
    counted = params.count_config(recipes.load('vit-b_ssf_vtab-cifar'))
    assert counted.trainable == counted.local == 12 * 22 * 768 + 4 * 768 == 205_824


def test_starts_beside_the_pretrained_model_or_from_it(backbone, images):
    plain = backbone(images)[0]
    method = SSF()
    method.attach(backbone)
    scales = torch.cat([own.scale.flatten() for own in method.local.values()])
    shifts = torch.cat([own.shift.flatten() for own in method.local.values()])
    torch.testing.assert_close(scales.mean(), torch.tensor(1.0), rtol=0, atol=2e-3)
    torch.testing.assert_close(scales.std(), torch.tensor(0.02), rtol=0.1, atol=0)
    torch.testing.assert_close(shifts.mean(), torch.tensor(0.0), rtol=0, atol=2e-3)
    torch.testing.assert_close(shifts.std(), torch.tensor(0.02), rtol=0.1, atol=0)
    assert not torch.equal(backbone(images)[0], plain)
    method.detach()
    SSF(std=0.0).attach(backbone)
    assert torch.equal(backbone(images)[0], plain)


def test_all_of_it_merges(backbone, images):
    method = SSF(std=0.3)
    method.attach(backbone)
    with torch.no_grad():
        adapted = backbone(images)[0]
        method.merge()
        torch.testing.assert_close(backbone(images)[0], adapted, rtol=1e-5, atol=1e-5)
        method.unmerge()
        assert torch.equal(backbone(images)[0], adapted)


def test_a_scale_is_not_rounded_to_bfloat16(vit, images):
    """Rounded, 1.003 would be 1.0 or 1.0078; the mean over many features tells."""
    method = SSF(std=0.0, sites=('fc2',))
    method.attach(vit)
    outputs = []
    vit.layers[0].ffn.layers[1].register_forward_hook(lambda *call: outputs.append(call[-1]))
    for scale in (1.0, 1.003):
        nn.init.constant_(method.local['layers/0/ffn/layers/1'].scale, scale)
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            vit(images)
    plain, scaled = (output.double().abs().sum() for output in outputs)
    assert outputs[1].dtype == torch.bfloat16
    assert abs(scaled / plain - 1.003) < 5e-4
