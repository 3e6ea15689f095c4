"""`torch.compile` with backends that trace the backward pass, and make code: the same gradients.

Other tests compile with the backend that does least, which leaves the backward pass to autograd.
"""

import os
import shutil

import pytest
import timm
import torch
from torch import _inductor
from torch._dynamo.utils import counters

import gleam_mm

METHODS = {
    'LoRA': dict(type='LoRA', rank=4),
    'FacT': dict(type='FacT', rank=4),
    'GLEAM-L': dict(type='GLEAM', rank=4, top_k=4),
}


def check(petl, backend):
    """A step of a compiled model gives the outputs and the gradients of one that is not."""
    torch.manual_seed(0)
    model = timm.create_model(
        'vit_tiny_patch16_224',
        **dict(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=3),
    )
    method = gleam_mm.attach(model, petl)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 16, 16)

    def step(seed=3):
        torch.manual_seed(seed)  # GLEAM's gates draw noise
        model.zero_grad()
        outputs = model.train()(images)
        outputs.square().sum().backward()
        return [outputs.detach(), *(p.grad for p in model.parameters() if p.requires_grad)]

    expected, other = step(), step(seed=4)
    assert torch.equal(expected[0], other[0]) == (petl['type'] != 'GLEAM')
    torch._dynamo.reset()
    counters.clear()
    model.compile(backend=backend, fullgraph=True)
    torch.testing.assert_close(step(), expected, rtol=1e-4, atol=1e-5)
    assert counters['aot_autograd']['ok'] == counters['stats']['unique_graphs'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('name', METHODS)
def test_the_backward_pass_is_traced_too(name):
    check(METHODS[name], 'aot_eager')


@pytest.mark.slow
def test_inductor(monkeypatch):
    """The backend that `compile=True` of a config asks for; noise is drawn by PyTorch here."""
    if shutil.which(os.environ.get('CXX', 'g++')) is None:
        pytest.skip('inductor needs a C++ compiler')
    monkeypatch.setattr(_inductor.config, 'fallback_random', True)
    monkeypatch.setattr(_inductor.config, 'compile_threads', 1)
    check(METHODS['GLEAM-L'], 'inductor')
    assert counters['inductor']
