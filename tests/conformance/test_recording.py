"""Any method takes the same steps when they are recorded and replayed, where there is a GPU.

No column of the matrix, which is made without one.
"""

import pytest
import torch
from cases import CASES, NUM_CLASSES, build_classifier, logits, make_images
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from gleam_mm.models import use_cuda_graphs
from gleam_mm.models.cuda_graphs import Aliased

BRANCHES = {
    'DyLoRA': 'it draws another rank at every step',
    'GLoRA, supernet': 'it draws another subnet at every step',
    'NOAH, supernet': 'it draws another subnet at every step',
    'MoSA': 'it draws another expert at every step',
    'HF PEFT: BOFT': 'it solves equations, and PyTorch asks the GPU whether they had a solution',
    'HF PEFT: FourierFT': 'PEFT moves the places of its coefficients to the GPU at every step',
    'HF PEFT: VB-LoRA': 'PEFT looks whether its logits are finite, in Python',
}


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason='a CUDA graph needs a GPU')
@pytest.mark.parametrize('kind', ['vit', 'timm-swin'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_replayed_steps_are_the_same(case, kind):
    def steps(recorded):
        classifier = build_classifier(case, kind).cuda().train()
        if recorded:
            use_cuda_graphs(classifier.backbone, classifier.petl)
        trained = [p for p in classifier.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
        torch.manual_seed(3)
        batches = [make_images(4).cuda() for _ in range(3)]
        labels = torch.arange(4, device='cuda') % NUM_CLASSES
        losses = []
        for images in batches:
            loss = F.cross_entropy(logits(classifier, images), labels)
            own_losses.extend(own := classifier.petl.all_losses())
            (loss + sum(own.values())).backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        return [*losses, *trained]

    own_losses = []
    expected = steps(recorded=False)
    if case.name in BRANCHES or own_losses:
        with pytest.raises(
            (RuntimeError, ValueError), match=r'do without cuda_graph|loss of its own'
        ):
            steps(recorded=True)
        return
    for ours, theirs in zip(steps(recorded=True), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['vit', 'timm-swin'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_what_is_recorded_reaches_every_parameter(case, kind):
    """Computed with other tensors in the memory of the parameters, which no method may pass by."""
    classifier = build_classifier(case, kind).train()
    parts, images = (classifier.backbone, classifier.petl), make_images(4)
    trained = list(dict.fromkeys(p for m in parts for p in m.parameters() if p.requires_grad))
    buffers = {name: buffer.clone() for name, buffer in classifier.named_buffers()}
    aliased = Aliased(parts, trained)

    def gradients(compute, inputs):
        for name, buffer in classifier.named_buffers():
            buffer.copy_(buffers[name])
        torch.manual_seed(2)
        outputs = [o for o in tree_leaves(compute(images)) if o.requires_grad]
        if not outputs:
            return []
        total = sum((output * torch.randn_like(output)).sum() for output in outputs)
        return torch.autograd.grad(total, inputs, allow_unused=True)

    expected = gradients(classifier.backbone, trained)
    found = gradients(aliased.compute, aliased.aliases)
    assert any(gradient is not None for gradient in expected) or not trained
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)
