"""What comes before the first block that a method adapts is neither kept nor gone back through."""

import inspect

import pytest
import torch
from cases import CASES, NUM_CLASSES, Case, build_classifier, logits, make_images, randomize
from table import KINDS
from torch.nn import functional as F

from gleam_mm.registry import MODELS

IN_MAKE_TEST = ('LoRA', 'GLEAM', 'SSF', 'VPT-deep', 'Adapter')
PLAIN = Case('Linear probing', dict(type='LinearProbe'), lambda shape: 0)


def in_the_last_block():
    """Every method that takes ``blocks``, there alone."""
    for case in CASES:
        if 'blocks' not in inspect.signature(MODELS.get(case.petl['type']).__init__).parameters:
            continue
        if case.petl.get('deep') is False:  # shallow prompts go through all blocks
            continue
        fast = case.name in IN_MAKE_TEST
        yield pytest.param(
            Case(case.name, {**case.petl, 'blocks': [-1]}, case.count, gaps=case.gaps),
            id=case.name,
            marks=[] if fast else [pytest.mark.slow],
        )


class Kept:
    """Tensors that autograd keeps before the last block is called, but for parameters."""

    def __init__(self, classifier):
        layout = classifier.petl.layout
        self.blocks = [site.module for site in layout.sites(('block',))]
        self.before, self.input, self.after = [], None, 0
        self.reached = False
        self.own = {p.data_ptr() for p in classifier.parameters()}
        self.blocks[-1].register_forward_pre_hook(self.reach, prepend=True)

    def reach(self, module, args):
        self.reached, self.input = True, args[0]

    def pack(self, tensor):
        if self.reached:
            self.after += 1
        elif tensor.data_ptr() not in self.own:
            self.before.append(tuple(tensor.shape))
        return tensor


def train(classifier):
    classifier.train()
    kept = Kept(classifier)
    images, labels = make_images(4), torch.arange(4) % NUM_CLASSES
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        loss = F.cross_entropy(logits(classifier, images), labels)
        loss = loss + sum(classifier.petl.all_losses().values())
    loss.backward()
    return kept


EVERY = ['vit', pytest.param('timm-swin', marks=pytest.mark.slow)]


@pytest.mark.parametrize('kind', EVERY)
@pytest.mark.parametrize('case', [*in_the_last_block()])
def test_nothing_is_kept_before_the_last_block(case, kind):
    classifier = build_classifier(case, kind)
    randomize(classifier.petl)
    kept = train(classifier)
    assert not kept.input.requires_grad  # so that the backward pass ends there
    assert kept.before == []
    assert kept.after


@pytest.mark.parametrize(('kind', 'start'), [('vit', 1), ('timm-swin', 3)])
def test_a_side_path_keeps_what_it_reads(kind, start):
    case = Case('DTL', dict(type='DTL', rank=2, start=start), lambda shape: 0)
    classifier = build_classifier(case, kind)
    randomize(classifier.petl)
    kept = train(classifier)
    assert not kept.input.requires_grad
    # Of each block that it reads before, in the stage of the last: the tokens, and A of them.
    read = [site for site in classifier.petl.sites.values() if site.index < start]
    assert [shape[-1] for shape in kept.before] == [32, 2] * len(read)


@pytest.mark.parametrize('kind', KINDS)
def test_linear_probing_keeps_nothing_of_the_backbone(kind):
    kept = train(build_classifier(PLAIN, kind))
    assert not kept.input.requires_grad
    assert kept.before == []
    assert kept.after <= 6  # the head and the loss
