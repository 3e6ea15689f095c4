"""Class activation maps against their formula, on both kinds of backbones."""

import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gleam_mm.analysis import cam
from gleam_mm.analysis.pictures import load_pictures
from gleam_mm.analysis.subjects import AnalysisError

KINDS = {
    'vit': ('layers.1.ln1', 4),
    'swin': ('stages.1.blocks.1.norm1', 8),
    'timm-vit': ('timm_model.blocks.1.norm1', 4),
    'timm-swin': ('timm_model.layers.1.blocks.1.norm1', 8),
}


def by_formula(subject, images, target, name, side):
    """Grad-CAM (Selvaraju et al., 2017, equations 1 and 2), on the grid."""
    kept = []
    module = subject.model.backbone.get_submodule(name)
    handle = module.register_forward_hook(lambda m, args, output: kept.append(output))
    logits = subject.model.head(subject.model.extract_feat(images.requires_grad_()))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, target].sum(), kept[0])
    maps = [t.detach().flatten(1, -2)[:, -side * side :] for t in (kept[0], gradient)]
    weighted = (maps[0] * maps[1].mean(1, keepdim=True)).sum(-1)
    return F.relu(weighted).view(-1, side, side).numpy()


@pytest.mark.parametrize('kind', KINDS)
def test_grad_cam(kind, make_subject):
    subject = make_subject('GLEAM', kind)
    name, side = KINDS[kind]
    pictures = load_pictures(subject, 'test', ['0', '7'])
    result = cam.measure(subject, pictures, target=2)
    assert result['site'] == name
    expected = by_formula(subject, pictures.inputs.clone(), 2, name, side)
    for image, whole in zip(result['images'], expected, strict=True):
        found = np.array(image['map'])
        assert found.shape == (32, 32)
        assert image['target'] == 'two'
        if whole.max() == 0:
            continue
        # Enlarged to the image, from 0 to 1.
        enlarged = F.interpolate(
            torch.tensor(whole)[None, None], size=(32, 32), mode='bilinear', align_corners=False
        )[0, 0].numpy()
        scaled = (enlarged - enlarged.min()) / (enlarged.max() - enlarged.min())
        np.testing.assert_allclose(found, scaled, atol=1e-4)
    assert any(whole.max() > 0 for whole in expected)


@pytest.mark.parametrize('method', [m for m in cam.METHODS if m != 'gradcam'])
def test_other_methods(method, make_subject):
    subject = make_subject('LoRA')
    result = cam.measure(subject, load_pictures(subject, 'test', ['0']), method)
    found = np.array(result['images'][0]['map'])
    assert found.shape == (32, 32)
    assert 0 <= found.min() <= found.max() <= 1
    assert result['images'][0]['target'] is None


def test_nothing_is_left_behind(make_subject):
    subject = make_subject('LoRA')
    hooks = [len(m._forward_hooks) for m in subject.model.modules()]
    cam.measure(subject, load_pictures(subject, 'test', ['0']))
    assert [len(m._forward_hooks) for m in subject.model.modules()] == hooks
    assert all(parameter.grad is None for parameter in subject.model.parameters())
    assert not subject.model.training


def test_mistakes(make_subject, monkeypatch):
    subject = make_subject('LoRA')
    pictures = load_pictures(subject, 'test', ['0'])
    with pytest.raises(AnalysisError, match='--method vcam: choose among gradcam'):
        cam.measure(subject, pictures, 'vcam')
    with pytest.raises(AnalysisError, match='--target 3: the classes are 0 to 2'):
        cam.measure(subject, pictures, target=3)
    with pytest.raises(AnalysisError, match=r'--site ln9: .* norms are such as layers\.0\.ln1'):
        cam.measure(subject, pictures, site_name='ln9')
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(ImportError, match=r"pip install 'gleam-mm\[analysis\]'"):
        cam.measure(subject, pictures)
