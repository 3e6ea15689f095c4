"""What a training step launches: the benchmark's count, and that no peer's LoRA launches less."""

import dataclasses

import pytest
import torch
from contenders import CONTENDERS, Backbone, vit
from counting import Calls
from launches import FOLDER, Count, counts, launches, markdown, read
from torch import nn

SIX_BLOCKS = Backbone(
    'ViT of six blocks',
    vit(64, 6, 2, 256, patch=8),
    64,
    ('vit_tiny_patch16_224', dict(patch_size=8, embed_dim=64, depth=6, num_heads=2)),
)


def count(name, dtype='float32'):
    return launches(name, SIX_BLOCKS, 32, dtype)


def test_a_count_is_that_of_calls_that_are_no_views(monkeypatch):
    class Two(nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1)[:, :8]).exp()

    contender = CONTENDERS['limit']
    own = type(contender)(contender.origin, lambda backbone, size: Two(8, 4))
    monkeypatch.setitem(CONTENDERS, 'own', own)
    # Forward: addmm, exp, sum. Backward: the ones to start from, times exp, the weight's product
    # and the bias's sum; the gradient of the images is not asked for.
    assert count('own') == 3 + 4
    # Under autocast inputs, weight and bias are lowered, and their gradients, and what is
    # summed, come back.
    assert count('own', 'bf16') > 3 + 4


def test_memory_and_what_is_seen_otherwise_are_no_kernels():
    tokens = torch.zeros(2, 3, 4).transpose(0, 1)
    weight = torch.zeros(4, 5)
    with Calls() as calls:
        tokens @ weight  # one product of matrices, and views
        torch.empty(3)
        torch.empty_like(tokens)
    assert calls.number == 1


@pytest.mark.parametrize('dtype', ['float32', 'bf16'])
def test_no_peers_lora_launches_less(dtype):
    """Ours has a few at the beginning of a pass, and less in each block."""
    ours = count('lora, every Linear', dtype) - count('limit', dtype)
    theirs = count("MMPretrain's LoRAModel, every Linear", dtype) - count('limit', dtype)
    assert ours < theirs
    ours = count('lora, every Linear (timm)', dtype) - count('limit (timm)', dtype)
    theirs = count("HF PEFT's LoRA, every Linear (timm)", dtype) - count('limit (timm)', dtype)
    assert ours < theirs


def test_widths_and_images_do_not_matter():
    wider = dataclasses.replace(SIX_BLOCKS, config=vit(128, 6, 2, 512, patch=8), width=128)
    for name in ('limit', 'fact'):
        assert launches(name, wider, 64, 'float32') == count(name)


@pytest.mark.parametrize('fast', [True, False])
def test_what_a_cpu_does_otherwise_is_not_counted(fast, monkeypatch):
    """Whether it has products of bfloat16, and that its attention is faster in float32."""
    alike = count('fact', 'bf16')
    monkeypatch.setattr('gleam_mm.models.precision.MULTIPLIES_BFLOAT16', fast)
    assert count('fact', 'bf16') == alike


@pytest.mark.slow
def test_the_record_is_what_is_counted():
    recorded = read(FOLDER / 'launches.csv')
    names = ('limit', 'gleam-l', 'fact', "HF PEFT's LoRA, every Linear (timm)")
    assert counts(names) == [one for one in recorded if one.contender in names]


def test_the_table_compares_with_the_limit_of_the_library():
    found = [
        Count(name, dtype, kernels)
        for name, kernels in (('limit', 100), ('lora', 150), ('limit (timm)', 200))
        for dtype in ('float32', 'bf16')
    ]
    lines = markdown(found).splitlines()
    assert '| lora | MMPretrain | 150 | 1.50 | 150 | 1.50 |' in lines
    assert '| limit (timm) | timm | 200 | 1.00 | 200 | 1.00 |' in lines
