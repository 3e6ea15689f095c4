"""Blocks that are computed again for their gradients give the gradients of the plain pass.

No column of the matrix: a method whose state crosses blocks cannot have it, and says so.
"""

import pytest
import torch
from cases import CASES, NUM_CLASSES, build_classifier, logits, make_images, randomize
from torch.nn import functional as F

SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ('timm-swin', 'swin')]
KINDS = ['timm-vit', *SLOW]

TIMM = 'timm-vit', 'timm-swin'
REFUSED = {
    # The state of a pass goes from block to block, and is gone when a block is computed again.
    'VPT-shallow': (*TIMM, 'swin'),
    'GateVPT': (*TIMM, 'swin'),
    'Compose: GLEAM and VPT': (*TIMM, 'swin'),
    'DTL+': TIMM,
    'READ': TIMM,
    # MMPretrain's Swin computes again what is within a block, which the prompts have left by then.
    'VPT-deep': ('swin',),
    'VFPT': ('swin',),
    'E2VPT': ('swin',),
    'NOAH, a subnet': ('swin',),
    'NOAH, supernet': ('swin',),
    # They read the stream within a block for what they add behind it.
    'AdaptFormer': ('swin',),
    'DyT': ('swin',),
    'CoDA': ('swin',),
    'MoSA': ('swin',),
    'MoA': ('swin',),
}
"""Method -> where it refuses; everywhere else it computes, and no other method may refuse."""


def checkpoint_blocks(backbone):
    """Does what the libraries have for it; MMPretrain's ViT has nothing."""
    if hasattr(backbone, 'timm_model'):
        backbone.timm_model.set_grad_checkpointing()
        return
    for module in backbone.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = True


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_gradients_are_those_of_the_plain_pass_or_it_is_refused(case, kind):
    """Noise and dropout of the second computation are those of the first."""
    classifier = build_classifier(case, kind)
    randomize(classifier.petl)
    classifier.train()
    images, labels = make_images(4), torch.arange(4) % NUM_CLASSES
    trained = {name: p for name, p in classifier.named_parameters() if p.requires_grad}
    state = {name: value.clone() for name, value in classifier.petl.named_buffers()}

    def gradients():
        torch.manual_seed(3)
        for name, value in classifier.petl.named_buffers():
            value.copy_(state[name])  # what counts steps begins again
        classifier.zero_grad()
        F.cross_entropy(logits(classifier, images), labels).backward()
        return {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}

    expected = gradients()
    checkpoint_blocks(classifier.backbone)
    if kind in REFUSED.get(case.name, ()):
        with pytest.raises(RuntimeError, match='checkpointing'):  # by name, no wrong gradient
            gradients()
        return
    computed = gradients()
    assert computed.keys() == expected.keys()  # a supernet trains the subnet of the step alone
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(computed[name], gradient, rtol=1e-4, atol=1e-6 * largest.item())
