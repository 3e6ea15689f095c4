"""LoRA's frozen A, and its starts from the weight, against HF PEFT's and the definition."""

import peft
import pytest
import timm
import torch
from mmpretrain.models import TIMMBackbone
from torch import nn
from watching import randomize

from gleam_mm.petl import LoRA

OPTIONS = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)


@pytest.mark.parametrize('init', ['pissa', 'olora'])
def test_starts_equal_hf_peft(init, images):
    """HF PEFT takes the start off the weight itself; the model is the same from there on."""
    backbone = TIMMBackbone('vit_tiny_patch16_224', **OPTIONS)
    backbone.eval()
    reference = timm.create_model('vit_tiny_patch16_224', num_classes=0, **OPTIONS).eval()
    reference.load_state_dict(backbone.timm_model.state_dict())
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=r'blocks.*\.qkv', init_lora_weights=init
    )
    reference = peft.inject_adapter_in_model(config, reference)
    method = LoRA(3, 5.0, init=init)
    method.attach(backbone)
    with torch.no_grad():
        for site in method.sites.values():
            pair = method.local[site.key]
            layer = reference.get_submodule(site.name.removeprefix('timm_model.'))
            theirs = layer.lora_B['default'].weight @ layer.lora_A['default'].weight
            torch.testing.assert_close(pair.up @ pair.down, theirs, rtol=1e-4, atol=1e-5)
            # Singular vectors have no sign: we go on from theirs.
            pair.start_from(layer.lora_A['default'].weight, layer.lora_B['default'].weight)
            for mine, other in (
                (pair.down, layer.lora_A['default'].weight),
                (pair.up, layer.lora_B['default'].weight),
            ):
                other.copy_(mine.add_(0.1 * torch.randn_like(mine)))
        torch.testing.assert_close(
            backbone(images)[0], reference.forward_features(images), rtol=1e-4, atol=1e-4
        )


def test_milora_starts_from_the_smallest_singular_values(vit):
    method = LoRA(3, 6.0, sites=('qkv', 'fc2'), init='milora')
    method.attach(vit)
    for site in method.sites.values():
        pair = method.local[site.key]
        # The best approximation of a lower rank is what is left of a weight without them.
        rest = site.weight - 2 * pair.up @ pair.down
        values, left = torch.linalg.svdvals(site.weight), torch.linalg.svdvals(rest)
        torch.testing.assert_close(left[:-3], values[:-3], rtol=1e-4, atol=1e-6)
        assert left[-3:].max() < 1e-5 < values[-1]


@pytest.mark.parametrize('init', ['pissa', 'milora', 'olora'])
def test_a_start_leaves_model_and_backbone_as_they_were(init, vit, images):
    weights = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    plain = vit(images)[0]
    method = LoRA(4, init=init, drop_rate=0.5)
    method.attach(vit)
    vit.train()  # dropout drops from both halves alike
    torch.testing.assert_close(vit(images)[0], plain, rtol=0, atol=2e-6)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in vit.state_dict().items())


def test_a_frozen_down_has_orthonormal_rows_and_is_no_parameter(backbone, images):
    method = LoRA(4, init='orthogonal', train_down=False)
    method.attach(backbone)
    before = {key: pair.down.clone() for key, pair in method.local.items()}
    assert {name.rpartition('.')[2] for name, _ in method.named_parameters()} == {'up'}
    for down in before.values():
        torch.testing.assert_close(down @ down.T, torch.eye(4))
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    backbone(images)[-1].square().sum().backward()
    optimizer.step()
    assert all(torch.equal(pair.down, before[key]) for key, pair in method.local.items())
    assert all(pair.up.abs().sum() > 0 for pair in method.local.values())
    randomize(method)
    names = [name for name in method.state_dict() if name.endswith('.down')]
    assert len(names) == len(before)  # a file holds what no other machine might draw alike


def test_bad_starts_are_named(vit):
    with pytest.raises(ValueError, match="init='svd': choose 'uniform' or 'orthogonal' or 'pissa'"):
        LoRA(init='svd')
    with pytest.raises(ValueError, match=r"rank=33 exceeds the 32 singular values of 'layers\.0"):
        LoRA(33, init='pissa').attach(vit)
    assert isinstance(LoRA(33), nn.Module)


@pytest.mark.parametrize('alpha', [0.0, -8.0])
def test_a_start_that_divides_by_alpha_needs_one_above_zero(alpha, vit, images):
    for init in ('pissa', 'milora'):
        with pytest.raises(ValueError, match=f"alpha={alpha}: init='{init}' divides by it"):
            LoRA(4, alpha, init=init)
    plain = vit(images)[0]
    LoRA(4, alpha, init='olora').attach(vit)
    torch.testing.assert_close(vit(images)[0], plain, rtol=0, atol=2e-6)
