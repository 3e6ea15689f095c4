"""A backbone with any method compiles as one graph for training, and is not compiled again.

Breaks and compilations are decided before a backend is asked, so that the one that does least will
do. No column of the matrix, which has the evaluation: a method that draws another model at every
step cannot have it.
"""

import pytest
import torch
from cases import CASES, NUM_CLASSES, build_classifier, logits, make_images, randomize
from torch._dynamo.utils import counters
from torch.nn import functional as F

BRANCHES = {
    'DyLoRA': 'it draws another rank at every step',
    'GLoRA, supernet': 'it draws another subnet at every step',
    'NOAH, supernet': 'it draws another subnet at every step',
    'MoSA': 'it draws another expert at every step',
    'HF PEFT: LoHa': 'PEFT draws whether a layer rests, in Python, even at a rate of 0',
    'HF PEFT: LoKr': 'PEFT draws whether a layer rests, in Python, even at a rate of 0',
    'HF PEFT: VB-LoRA': 'PEFT looks whether its logits are finite, in Python',
}


def cases():
    for case in CASES:
        reason = case.gap('compile', 'vit') or BRANCHES.get(case.name)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        yield pytest.param(case, id=case.name, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['vit', 'timm-swin'])
@pytest.mark.parametrize('case', [*cases()])
def test_compiled_once_for_training_and_once_for_evaluation(case, kind):
    classifier = build_classifier(case, kind)
    randomize(classifier.petl)
    images, labels = make_images(4), torch.arange(4) % NUM_CLASSES
    trained = [p for p in classifier.parameters() if p.requires_grad]

    def step():
        classifier.zero_grad()
        loss = F.cross_entropy(logits(classifier, images), labels)
        (loss + sum(classifier.petl.all_losses().values())).backward()
        return [None if p.grad is None else p.grad.clone() for p in trained]

    def evaluate():
        with torch.no_grad():
            return [logits(classifier, images)]

    modes = [(True, step), (False, evaluate)]
    buffers = {name: buffer.clone() for name, buffer in classifier.petl.named_buffers()}

    def run(training, what):
        torch.manual_seed(3)
        for name, buffer in classifier.petl.named_buffers():
            buffer.copy_(buffers[name])
        classifier.train(training)
        return what()

    expected = [run(*mode) for mode in modes]
    torch._dynamo.reset()
    counters.clear()
    classifier.backbone.compile(backend='eager', fullgraph=True)
    computed = [run(*mode) for mode in modes]
    assert not counters['graph_break']
    graphs = counters['stats']['unique_graphs']
    for training, what in modes * 2:  # as steps follow each other
        classifier.train(training)
        what()
    assert counters['stats']['unique_graphs'] == graphs
    for ours, theirs in zip(computed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
