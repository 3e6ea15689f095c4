"""What a method reads is made again for its gradients: those of the plain pass, to the bit.

No column of the matrix: there is no method that may do without.
"""

import pytest
import torch
from backbones import VIT_FIRST
from cases import CASES, NUM_CLASSES, build_classifier, logits, make_images, randomize
from torch.nn import functional as F


@pytest.mark.parametrize('kind', VIT_FIRST)
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_gradients_are_those_of_the_plain_pass_to_the_bit(case, kind):
    classifier = build_classifier(case, kind)
    randomize(classifier.petl)
    classifier.train()
    images, labels = make_images(4), torch.arange(4) % NUM_CLASSES
    state = {name: value.clone() for name, value in classifier.petl.named_buffers()}

    def gradients(recompute, bfloat16):
        for member in classifier.petl.members():
            member.recompute = recompute
        torch.manual_seed(3)
        for name, value in classifier.petl.named_buffers():
            value.copy_(state[name])  # what counts steps begins again
        classifier.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
            outputs = logits(classifier, images)
        F.cross_entropy(outputs.float(), labels).backward()
        return {n: p.grad for n, p in classifier.named_parameters() if p.grad is not None}

    for bfloat16 in (False, True):
        plain, made_again = gradients(False, bfloat16), gradients(True, bfloat16)
        assert plain.keys() == made_again.keys()
        for name, gradient in plain.items():
            assert torch.equal(made_again[name], gradient), name
