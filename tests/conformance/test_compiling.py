"""A backbone with any method compiles as one graph for each mode, and is not compiled again.

Breaks and compilations are decided before a backend is asked, so that the one that does least will
do.
"""

import pytest
import torch
from cases import CASES, NUM_CLASSES, build_classifier, logits, make_images, randomize
from torch._dynamo.utils import counters
from torch.nn import functional as F

TRAINED = 'vit', 'timm-swin'
"""A ViT of one library and a Swin of the other train as well; the rest of the matrix evaluates."""

BRANCHES = {
    'DyLoRA': 'it draws another rank at every step',
    'GLoRA, supernet': 'it draws another subnet at every step',
    'NOAH, supernet': 'it draws another subnet at every step',
    'MoSA': 'it draws another expert at every step',
    'HF PEFT: LoHa': 'PEFT draws whether a layer rests, in Python, even at a rate of 0',
    'HF PEFT: LoKr': 'PEFT draws whether a layer rests, in Python, even at a rate of 0',
    'HF PEFT: VB-LoRA': 'PEFT looks whether its logits are finite, in Python',
}
"""Who cannot train as one graph, and why."""


def step(classifier, images):
    """The gradients of a step of training."""
    classifier.zero_grad()
    loss = F.cross_entropy(logits(classifier, images), torch.arange(len(images)) % NUM_CLASSES)
    (loss + sum(classifier.petl.all_losses().values())).backward()
    trained = [p for p in classifier.parameters() if p.requires_grad]
    return [None if p.grad is None else p.grad.clone() for p in trained]


def evaluate(classifier, images):
    """The logits of an evaluation."""
    with torch.no_grad():
        return [logits(classifier, images)]


def check_compiled(classifier, modes):
    """Compares what modes give compiled with what they give without, twice.

    Args:
        classifier: Of random weights.
        modes: Whether it trains, what to do, and the tolerances of that.
    """
    randomize(classifier.petl)
    images = make_images(4)
    buffers = {name: buffer.clone() for name, buffer in classifier.petl.named_buffers()}

    def run(training, what, tolerances):
        torch.manual_seed(3)
        for name, buffer in classifier.petl.named_buffers():
            buffer.copy_(buffers[name])
        classifier.train(training)
        return what(classifier, images)

    expected = [run(*mode) for mode in modes]
    torch._dynamo.reset()
    counters.clear()
    classifier.backbone.compile(backend='eager', fullgraph=True)
    computed = [run(*mode) for mode in modes]
    assert not counters['graph_break']
    graphs = counters['stats']['unique_graphs']
    for training, what, _ in modes * 2:  # as steps follow each other
        classifier.train(training)
        what(classifier, images)
    assert counters['stats']['unique_graphs'] == graphs
    for (_, _, tolerances), ours, theirs in zip(modes, computed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerances)


TRAINING = True, step, dict(rtol=1e-4, atol=1e-5)
EVALUATION = False, evaluate, {}


@pytest.mark.slow
def test_compile(case, kind, classifier):
    trains = kind in TRAINED and case.name not in BRANCHES
    check_compiled(classifier, [TRAINING, EVALUATION] if trains else [EVALUATION])


@pytest.mark.slow
@pytest.mark.parametrize('kind', TRAINED)
@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=reason, strict=True))
        for name, reason in BRANCHES.items()
    ],
)
def test_a_model_that_is_another_at_every_step_is_no_graph(name, kind):
    (case,) = (case for case in CASES if case.name == name)
    check_compiled(build_classifier(case, kind), [TRAINING])
