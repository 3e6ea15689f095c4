"""A file of a tiny model of timm."""

import pytest
import timm
import torch

import gleam_mm

OPTIONS = dict(patch_size=8, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture
def saved_adapter(tmp_path, monkeypatch):
    """An adapter of three classes, whose backbone is where the environment says."""
    torch.manual_seed(0)
    model = timm.create_model(
        'vit_base_patch16_224.augreg_in21k', img_size=32, num_classes=3, **OPTIONS
    )
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    monkeypatch.setenv('GLEAM_WEIGHTS', str(tmp_path / 'weights.pth'))
    gleam_mm.attach(model, 'gleam-t')
    with torch.no_grad():
        for parameter in model.petl.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    gleam_mm.save(
        model,
        tmp_path / 'pets.safetensors',
        classes=['a', 'b', 'c'],
        options=OPTIONS,
        data_config=dict(crop_pct=1.0),
    )
    return tmp_path / 'pets.safetensors'
