"""A method enters a backbone, leaves it, folds into it and is copied with it."""

import copy
import pickle

import pytest
import torch
from cases import build_backbone, build_classifier, randomize
from torch import nn

from gleam_mm.petl import MergeError
from gleam_mm.registry import MODELS
from gleam_mm.shell import PROGRAM, command


@pytest.fixture
def attached(case, kind):
    """A backbone in evaluation mode, and the method that is attached to it."""
    classifier = build_classifier(case, kind)
    return classifier.backbone, classifier.petl


def changes(method):
    """Whether training changes the backbone's features at all."""
    return any(True for _ in method.trainable_parameters())


def adds(method):
    """Whether the method has parameters of its own, beside those of the backbone."""
    return any(True for _ in method.parameters())


@torch.no_grad()
def features(backbone, images):
    return backbone(images)[-1]


def test_identity(case, kind, images, record_property):
    backbone = build_backbone(kind)
    original = features(backbone, images)
    method = MODELS.build(dict(case.petl)).eval()
    method.attach(backbone)
    if case.identity:
        torch.testing.assert_close(features(backbone, images), original, rtol=0, atol=2e-6)
    else:
        assert not torch.equal(features(backbone, images), original)
        record_property('cell', 'no')


def test_detach(case, kind, images):
    backbone = build_backbone(kind)
    original, weights = features(backbone, images), copy.deepcopy(backbone.state_dict())
    method = MODELS.build(dict(case.petl)).eval()
    method.attach(backbone)
    assert list(backbone.state_dict()) == list(weights)
    if adds(method):
        randomize(method)
        adapted = features(backbone, images)
        assert not torch.equal(adapted, original)
    method.detach()
    assert not method.attached and not method.sites
    assert torch.equal(features(backbone, images), original)
    state = backbone.state_dict()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    assert state.keys() == weights.keys()
    if adds(method):
        method.attach(backbone)
        assert torch.equal(features(backbone, images), adapted)


def test_attach_twice(attached):
    backbone, method = attached
    with pytest.raises(RuntimeError, match='attached already; call detach'):
        method.attach(backbone)


def test_merge(case, attached, images, record_property):
    backbone, method = attached
    randomize(method)
    adapted, weights = features(backbone, images), copy.deepcopy(backbone.state_dict())
    trained = [parameter.requires_grad for parameter in backbone.parameters()]
    if not case.merges:
        with pytest.raises(MergeError, match='cannot be merged: ') as refusal:
            method.merge()
        assert torch.equal(features(backbone, images), adapted)
        record_property('cell', 'refuses')
        # The page does not depend on where the environment of this run lies.
        said = str(refusal.value).replace(command(), PROGRAM)
        record_property('note', said.partition('cannot be merged: ')[2])
        return
    method.merge()
    assert method.merged
    assert [parameter.requires_grad for parameter in backbone.parameters()] == trained
    torch.testing.assert_close(features(backbone, images), adapted, rtol=1e-5, atol=1e-5)
    twin_backbone, twin = copy.deepcopy((backbone, method))
    twin.unmerge()
    assert torch.equal(features(twin_backbone, images), adapted)
    method.detach()
    state = backbone.state_dict()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    method.attach(backbone)
    assert torch.equal(features(backbone, images), adapted)


@pytest.mark.parametrize(
    'copier',
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=['deepcopy', 'pickle'],
)
def test_copies(case, kind, copier, images):
    backbone = build_backbone(kind)
    original = features(backbone, images)
    method = MODELS.build(dict(case.petl)).eval()
    method.attach(backbone)
    randomize(method)
    adapted = features(backbone, images)
    twin_backbone, twin = copier(nn.ModuleList([backbone, method]))
    assert torch.equal(features(twin_backbone, images), adapted)
    if changes(twin):
        randomize(twin)
        assert not torch.equal(features(twin_backbone, images), adapted)
    assert torch.equal(features(backbone, images), adapted)
    twin.detach()
    assert torch.equal(features(backbone, images), adapted)
    if adds(method):
        assert torch.equal(features(twin_backbone, images), original)
