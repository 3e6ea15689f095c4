"""A pass leaves nothing alive behind it, nor the graph that it was a part of.

No column of the matrix: there is no method that may keep any.
"""

import weakref

import pytest
import torch
from backbones import VIT_FIRST
from cases import CASES, build_classifier, logits, make_images


@pytest.mark.parametrize('kind', VIT_FIRST)
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_nothing_of_a_pass_outlives_it(case, kind):
    classifier = build_classifier(case, kind)
    classifier.train()
    seen = []

    def see(module, args, output):
        for tensor in (*args, output):
            if isinstance(tensor, torch.Tensor):
                seen.append((module, weakref.ref(tensor)))

    handles = [module.register_forward_hook(see) for module in classifier.backbone.modules()]
    outputs = logits(classifier, make_images(2))
    losses = classifier.petl.all_losses()
    assert seen
    del outputs, losses
    for handle in handles:
        handle.remove()
    left = {type(module).__name__ for module, tensor in seen if tensor() is not None}
    assert not left
