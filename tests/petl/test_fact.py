"""FacT's Tucker form against the tensor that it factorises, and its parameter counts."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gleam_mm.config import recipes
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.models import params
from gleam_mm.petl import FacT

RANK = 3


def tensors(method):
    """A stage's tensor (number of matrices, d, d), from core, A, B and the columns of P in order.

    Returns:
        Stage -> tensor, and site -> indices (block out, block in) of its matrices in there.
    """
    sites = method.layout.sites(LINEAR_ROLES)
    tensors, places = {}, {}
    for stage in {site.stage for site in sites}:
        columns = []
        for site in (site for site in sites if site.stage == stage):
            weight = method.local[site.key].weight
            numbers = torch.arange(weight.shape[:2].numel()) + len(columns)
            places[site.name] = numbers.view(weight.shape[:2])
            columns += weight.flatten(0, 1)
        projection = method.shared['projections'][str(stage)]
        core = method.shared['cores'][str(stage)].weight
        # Mode products of the core with B, A and P.
        tensors[stage] = torch.einsum(
            'abk,oa,bi,nk->noi', core, projection.up, projection.down, torch.stack(columns)
        )
    return tensors, places


def test_every_weight_is_updated_by_its_slices_of_the_tensor(backbone, images):
    method = FacT(RANK, alpha=0.5, form='tk').eval()
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    seen = {}
    for site in method.layout.sites(LINEAR_ROLES):
        site.module.register_forward_hook(
            lambda module, args, output, site=site: seen.update({site: (args[0], output)})
        )
    with torch.no_grad():
        backbone(images)
        by_stage, places = tensors(method)
        assert len(seen) == len(method.layout.sites(LINEAR_ROLES)) > 0
        for site, (x, adapted) in seen.items():
            tensor, place = by_stage[site.stage], places[site.name]
            update = torch.cat([torch.cat(list(tensor[row]), dim=1) for row in place])
            weight = site.module.weight + 0.5 * update
            expected = F.linear(x, weight, site.module.bias)
            torch.testing.assert_close(adapted, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('rank', 'count'), [(16, 30_976), (32, 86_528)])
def test_parameters_on_vit_b(rank, count):
    recipe = recipes.load('vit-b_fact-tk_vtab-cifar', {'model.petl.rank': rank})
    counted = params.count_config(recipe)
    assert counted.trainable == 2 * 768 * rank + 144 * rank + rank**3 == count
    assert counted.local == 144 * rank


def test_a_stage_of_swin_has_a_tensor_of_its_own():
    counted = params.count_config(recipes.load('swin-b_fact-tk_vtab-cifar'))
    widths, depths = (128, 256, 512, 1024), (2, 2, 18, 2)
    assert counted.trainable == sum(
        2 * width * 32 + 12 * depth * 32 + 32**3
        for width, depth in zip(widths, depths, strict=True)
    )


def test_the_train_is_still_the_default():
    counted = params.count_config(recipes.load('vit-b_fact_vtab-cifar'))
    assert counted.trainable == 2 * 768 * 16 + 144 * 16**2 == 61_440


def test_it_merges(backbone, images):
    method = FacT(RANK, form='tk').eval()
    method.attach(backbone)
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        adapted = backbone(images)[0]
        method.merge()
        torch.testing.assert_close(backbone(images)[0], adapted, rtol=1e-5, atol=1e-5)
        method.unmerge()
        assert torch.equal(backbone(images)[0], adapted)


def test_unknown_form_is_named():
    with pytest.raises(ValueError, match="form='cp': choose 'tt' or 'tk'"):
        FacT(form='cp')
