"""A method learns, all of it; in bfloat16 as well, on images of every size, and compiled."""

import pytest
import torch
from cases import NUM_CLASSES, build_backbone, logits, randomize
from torch.nn import functional as F

from gleam_mm.registry import MODELS


@pytest.fixture
def labels(images):
    return torch.arange(len(images)) % NUM_CLASSES


def trained_parameters(classifier):
    """What the method trains; what the head trains where the method trains nothing."""
    parameters = dict(classifier.petl.trainable_parameters())
    return parameters or dict(classifier.head.named_parameters())


def loss_of(classifier, images, labels, bfloat16=False):
    with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
        outputs = logits(classifier, images)
        own = sum(classifier.petl.all_losses().values())
    return F.cross_entropy(outputs.float(), labels) + own


def train(classifier, images, labels, steps, watch=lambda parameters: None, bfloat16=False):
    """Trains the method alone, so that a head that learns cannot hide one that does not.

    Returns the losses before and after, without what a method does by chance while it trains.
    """
    parameters = trained_parameters(classifier)
    optimizer = torch.optim.Adam(parameters.values(), lr=5e-3)
    with torch.no_grad():
        before = loss_of(classifier, images, labels)
    classifier.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(classifier, images, labels, bfloat16).backward()
        watch(parameters)
        optimizer.step()
    classifier.eval()
    with torch.no_grad():
        return before, loss_of(classifier, images, labels)


def test_gradients(classifier, images, labels):
    reached = set()

    def watch(parameters):
        # A parameter without a gradient would make DDP look for unused parameters at every step.
        assert not {name for name, parameter in parameters.items() if parameter.grad is None}
        reached.update(name for name, p in parameters.items() if p.grad.abs().max() > 0)

    train(classifier, images, labels, 3, watch)
    assert reached == set(trained_parameters(classifier))


def test_learning(classifier, images, labels):
    before, after = train(classifier, images, labels, 10)
    assert after < before


def test_bfloat16(classifier, images, labels):
    before, after = train(classifier, images, labels, 10, bfloat16=True)
    assert after < before
    assert all(p.dtype == torch.float32 for p in trained_parameters(classifier).values())


@torch.no_grad()
def test_image_size(case, kind):
    backbone = build_backbone(kind)
    small, large = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 48, 64)
    original = backbone(large)[-1]
    method = MODELS.build(dict(case.petl)).eval()
    method.attach(backbone)
    randomize(method)
    before, adapted = backbone(small)[-1], backbone(large)[-1]
    assert adapted.shape == original.shape
    assert adapted.isfinite().all()
    # What one size leaves behind must not touch the other.
    assert torch.equal(backbone(small)[-1], before)
    assert torch.equal(backbone(large)[-1], adapted)
