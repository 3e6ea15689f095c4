"""What takes ``sites`` adapts queries and values alone, or says when it is attached that it cannot.

No column of the matrix: there is no method that may do otherwise.
"""

import inspect

import pytest
import torch
from cases import CASES, build_backbone, make_images, randomize

from gleam_mm.petl import MergeError
from gleam_mm.registry import MODELS

PARTS = ['q', 'v']


def at_parts(petl):
    """A config of a method at queries and values; None where it has sites of its own."""
    takes = inspect.signature(MODELS.get(petl['type']).__init__).parameters
    if 'methods' in takes:
        own = petl['methods']
        inside = [at_parts(method) for method in (own.values() if isinstance(own, dict) else own)]
        if None in inside:
            return None
        methods = dict(zip(own, inside, strict=True)) if isinstance(own, dict) else inside
        return {**petl, 'methods': methods}
    return {**petl, 'sites': PARTS} if 'sites' in takes else None


FUSED = dict(type='AdapterFusion', methods=[dict(type='LoRA', rank=2), dict(type='Adapter')])

TAKING = [
    *(pytest.param(case.petl, id=case.name) for case in CASES if at_parts(case.petl)),
    pytest.param(FUSED, id='AdapterFusion of LoRA and Adapter'),
]


@pytest.mark.parametrize('petl', TAKING)
@torch.no_grad()
def test_queries_and_values_alone_or_a_refusal(petl):
    backbone, images = build_backbone('timm-vit'), make_images(2)
    try:
        method = MODELS.build(at_parts(petl)).eval()
        method.attach(backbone)
    except ValueError as refusal:
        assert petl['type'] in str(refusal)
        return
    randomize(method)

    qkv = method.layout.sites(['qkv'])[-1].module
    seen = []
    handle = qkv.register_forward_hook(lambda module, args, y: seen.append((args[0], y.clone())))
    adapted = backbone(images)[-1]
    handle.remove()
    ((x, y),) = seen
    changes = (y - torch.nn.functional.linear(x, qkv.weight, qkv.bias)).unflatten(-1, (3, -1))
    queries, keys, values = changes.abs().amax((0, 1, 3))
    assert keys < 1e-6 < 1e-3 < min(queries, values)
    try:
        method.merge()
    except MergeError:
        return
    torch.testing.assert_close(backbone(images)[-1], adapted, rtol=1e-5, atol=1e-5)
