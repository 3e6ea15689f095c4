"""A thousand small adapters beside a ViT-B."""

from pathlib import Path

import pytest
import torch
from adapters import PREPROCESSOR, write
from backbones import evaluating

import gleam_mm
from gleam_mm.config import recipes
from gleam_mm.registry import MODELS, own_scope

PARAMETERS = 2 * 768 * 4 + 12 * 12 * 4**2 + 9 * 4 * 4**2 + 2 * 4 * 4  # of GLEAM-T, by the paper
NUMBER = 1000


def resident():
    """The memory of this process, in bytes."""
    return int(Path('/proc/self/statm').read_text(encoding='utf-8').split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='Linux tells memory there')
def test_a_thousand_of_gleam_t_take_less_than_40_mb(tmp_path):
    config = dict(
        type='PETLClassifier',
        backbone=dict(type='VisionTransformer', arch='b', img_size=32, patch_size=16),
        head=dict(type='LinearClsHead', in_channels=768, num_classes=2),  # heads are no adapters
        petl=recipes.method_preset('gleam-t'),
        data_preprocessor=PREPROCESSOR,
        allow_random_backbone=True,
        probe=False,
    )
    with own_scope():
        path = write(evaluating(MODELS.build(config)), tmp_path / 'a.safetensors')
    bank = gleam_mm.AdapterBank(adapters={'first': path}, device='cpu')
    picture = torch.zeros(3, 32, 32)
    bank([picture] * 2, tasks='first')
    before = resident()
    for number in range(1, NUMBER):
        bank.add(str(number), path)
    memory = bank.memory
    assert memory.tasks == NUMBER
    assert NUMBER * 4 * PARAMETERS <= memory.adapters < 40e6
    assert memory.heads == NUMBER * 4 * 2 * 769
    grown = resident() - before
    print(f'adapters {memory.adapters / 1e6:.1f} MB, process grew by {grown / 1e6:.1f} MB')
    assert grown < memory.adapters + memory.heads + NUMBER * 25_000  # Python's objects
    assert bank([picture], tasks='999') == bank([picture], tasks='first')
