"""What merges alone merges beside others, and into a backbone of lower precision.

No column of the matrix: there is no method that may do without.
"""

import copy

import pytest
import torch
from backbones import VIT_FIRST
from cases import CASES, build_backbone, make_images, randomize

from gleam_mm.petl import LoRA, MergeError, RepAdapter
from gleam_mm.registry import MODELS

AROUND_AND_INSIDE = 'Compose: RepAdapter, LoRA, SSF'
"""It adapts inputs and outputs of one Linear, so that no other method there is first or last."""

MERGING = [case for case in CASES if case.merges and case.name != AROUND_AND_INSIDE]


@pytest.mark.parametrize('kind', VIT_FIRST)
@pytest.mark.parametrize('case', MERGING, ids=lambda case: case.name)
@pytest.mark.filterwarnings('ignore:.* is attached to a backbone that has')
def test_outputs_stay_whatever_is_merged_with_it(case, kind):
    backbone = build_backbone(kind)
    images = make_images(2)
    method = MODELS.build(dict(case.petl)).eval()
    inputs, outputs = RepAdapter(4).eval(), LoRA(2, sites=['qkv', 'fc1', 'fc2']).eval()
    for attached in (inputs, method, outputs):
        attached.attach(backbone)
        randomize(attached)

    with torch.no_grad():
        adapted = backbone(images)[-1]
        try:
            method.merge()
            order = [outputs, inputs]
        except MergeError:  # it adapts inputs, and so is around what adapts outputs
            outputs.merge()
            order = [method, inputs]
        steps = [each.merge for each in order] + [each.unmerge for each in reversed(order)]
        for step in steps:
            step()
            torch.testing.assert_close(backbone(images)[-1], adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'case', [case for case in CASES if case.merges], ids=lambda case: case.name
)
@torch.no_grad()
def test_folded_weights_have_the_precision_of_those_they_replace(case):
    low = build_backbone('vit').bfloat16()
    high = copy.deepcopy(low).float()
    method, twin = (MODELS.build(dict(case.petl)).eval() for _ in range(2))
    method.attach(low)
    randomize(method)
    twin.attach(high)
    twin.load_state_dict(method.state_dict())
    high.load_state_dict(low.state_dict())  # what a method trains of the backbone itself
    method.merge()
    twin.merge()
    for (name, weight), exact in zip(
        low.state_dict().items(), high.state_dict().values(), strict=True
    ):
        assert weight.dtype == torch.bfloat16, name
        torch.testing.assert_close(weight, exact.bfloat16(), rtol=2**-7, atol=1e-3)
    low(make_images(2).bfloat16())
