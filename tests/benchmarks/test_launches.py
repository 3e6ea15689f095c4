"""What a training step launches: the benchmark's count, and that no peer's LoRA launches less."""

import pytest
import torch
from contenders import BACKBONES, CONTENDERS, Backbone, vit
from counting import Calls
from launches import launches, table
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


def test_the_table_has_a_row_for_each():
    text = table(BACKBONES['vit-mini'], 32, ['limit', 'lora', 'limit (timm)'])
    assert text.count('\n') == 4
    assert '| limit | MMPretrain |' in text
