"""Adapters of earlier releases load, and compute what they computed when they were written.

``written_by_0_1_0/`` holds two that ``tools/train.py`` wrote, of GLEAM-T on ViT and LoRA on Swin,
and what the models of that release gave for three images.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gleam_mm.checkpoint import load_adapter
from gleam_mm.config import recipes
from gleam_mm.registry import MODELS, scope_of

FOLDER = Path(__file__).parent / 'written_by_0_1_0'
RECIPES = {
    'vit': ('vit-mini_gleam-t_mini-digits', {'model.petl.top_k': 2}),  # as the preset was
    'swin': ('swin-mini_lora_mini-digits', {}),
}


@pytest.fixture(scope='module')
def outputs():
    return load_file(FOLDER / 'outputs.safetensors')


@torch.no_grad()
def logits(model, images):
    model.eval()
    return model(model.data_preprocessor({'inputs': list(images)})['inputs'])


@pytest.mark.parametrize('name', RECIPES)
def test_adapter_of_0_1_0_computes_what_it_did(name, outputs):
    recipe, options = RECIPES[name]
    cfg = recipes.load(recipe, {'model.head.num_classes': 10, **options})
    with scope_of(cfg):
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    untrained = logits(model, outputs['images'])
    metadata = load_adapter(model, FOLDER / f'{name}.safetensors')
    assert metadata['versions']['gleam_mm'] == '0.1.0'
    trained = logits(model, outputs['images'])
    torch.testing.assert_close(trained, outputs[name], rtol=0, atol=1e-4)
    assert not torch.allclose(trained, untrained, atol=0.1)
