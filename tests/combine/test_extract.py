"""A LoRA out of full tuning, against the singular values of what was changed."""

import copy

import pytest
import torch
from backbones import CONFIGS, NECKS, WIDTH
from mmengine.config import Config

from gleam_mm.checkpoint import CheckpointError, read_adapter
from gleam_mm.combine.extract import extract, full_model
from gleam_mm.layouts import find_layout
from gleam_mm.models import load_model
from gleam_mm.petl import BitFit
from gleam_mm.registry import MODELS

CLASSES = ('ant', 'bee', 'cat')


@pytest.fixture(params=['vit', 'swin', 'timm-vit'])
def kind(request):
    return request.param


@pytest.fixture
def base(kind, tmp_path):
    """The config of a pretrained backbone."""
    torch.manual_seed(0)
    weights = tmp_path / 'weights.pth'
    torch.save(MODELS.build(copy.deepcopy(CONFIGS[kind])).state_dict(), weights)
    named = dict(type='Pretrained', checkpoint=str(weights))
    model = dict(
        type='PETLClassifier',
        backbone={**copy.deepcopy(CONFIGS[kind]), 'init_cfg': named},
        neck=NECKS[kind],
        head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=None),
        petl=dict(type='LoRA'),
    )
    return Config(dict(default_scope='gleam_mm', model=model))


@pytest.fixture
def tuned(kind, base, tmp_path):
    """A checkpoint whose Linears have changed by rank 3, and other things that a LoRA has not."""

    def make(rank=3, others=('bias',)):
        backbone = MODELS.build(copy.deepcopy(CONFIGS[kind]))
        backbone.load_state_dict(torch.load(base.model.backbone.init_cfg.checkpoint))
        torch.manual_seed(1)
        with torch.no_grad():
            for site in find_layout(backbone).sites(('qkv', 'proj', 'fc1', 'fc2')):
                m, n = site.module.weight.shape
                site.module.weight.add_(0.1 * torch.randn(m, rank) @ torch.randn(rank, n))
            for name, parameter in backbone.named_parameters():
                if parameter.ndim == 1 and ('bias' in others or 'norm' in name):
                    parameter.add_(0.1 * torch.randn_like(parameter))
                if any(other in name for other in others if other != 'bias'):
                    parameter.add_(0.1 * torch.randn_like(parameter))
        head = torch.nn.Linear(WIDTH, len(CLASSES))
        file = tmp_path / 'full.pth'
        state = backbone.state_dict()
        if kind == 'timm-vit':  # as timm's own training saves it
            state = {k.removeprefix('timm_model.'): v for k, v in state.items()}
            torch.save({**state, 'head.weight': head.weight, 'head.bias': head.bias}, file)
        else:  # as MMPretrain does
            state = {f'backbone.{k}': v for k, v in state.items()}
            state |= {'head.fc.weight': head.weight, 'head.fc.bias': head.bias}
            torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=CLASSES))), file)
        return file, backbone, head

    return make


@torch.no_grad()
def test_the_rank_of_the_change_holds_it_all(kind, base, tuned, images, tmp_path):
    file, backbone, head = tuned()
    made = extract(file, base, tmp_path / 'out.safetensors', rank=3)
    backbone.train(False)
    model = load_model(checkpoint=tmp_path / 'out.safetensors')
    features = backbone(images)
    expected = head((model.neck(features) if model.with_neck else features)[-1])
    for classifier in (model, full_model(base, file)):
        torch.testing.assert_close(classifier(images), expected, rtol=1e-4, atol=1e-4)
    assert made.rank == 3 and not made.lost
    assert min(made.energies.values()) == pytest.approx(1.0, abs=1e-6)
    told = read_adapter(tmp_path / 'out.safetensors')[1]
    assert told['classes'] == (None if kind == 'timm-vit' else list(CLASSES))
    assert told['method']['methods']['lora']['rank'] == 3


def test_energy_and_what_is_lost(base, tuned, tmp_path):
    file, backbone, _ = tuned(rank=8, others=('bias', 'patch_embed.proj'))
    made = extract(file, base, tmp_path / 'out.safetensors', energy=0.8)
    pretrained = torch.load(base.model.backbone.init_cfg.checkpoint)
    needed = []
    for name, kept in made.energies.items():
        weight = backbone.state_dict()[f'{name}.weight']
        s = torch.linalg.svdvals(weight - pretrained[f'{name}.weight']).square()
        share = s.cumsum(0) / s.sum()
        needed.append(int((share < 0.8).sum()) + 1)
        assert kept == pytest.approx(share[made.rank - 1].item(), abs=1e-4)
    assert made.rank == max(needed) < 8
    (name,) = made.lost
    before, after = pretrained[name], backbone.state_dict()[name]
    assert name.endswith(('projection.weight', 'proj.weight'))
    assert made.lost[name] == pytest.approx(((after - before).norm() / before.norm()).item())


@pytest.mark.parametrize('kind', ['vit'], indirect=True)
def test_what_does_not_belong_together(base, tuned, tmp_path):
    file, *_ = tuned()
    out = tmp_path / 'out.safetensors'
    for size in ({}, dict(rank=0), dict(energy=1.5), dict(rank=1, energy=0.5)):
        with pytest.raises(ValueError, match=r'rank|energy'):
            extract(file, base, out, **size)
    content = torch.load(file)
    del content['state_dict']['head.fc.weight']
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=r'full.pth: has no head\.fc\.weight'):
        extract(file, base, out, rank=1)
    torch.save({'head.weight': torch.ones(3, WIDTH)}, file)
    with pytest.raises(CheckpointError, match='does not have the weights of the backbone'):
        extract(file, base, out, rank=1)
    assert not out.exists()
    with pytest.raises(FileExistsError, match=r'full\.pth exists already'):
        extract(file, base, file, rank=1)


def test_norms_learn_beside_biases(vit):
    method = BitFit(norms=True)
    method.attach(vit)
    more = {name for name, _ in method.trainable_parameters()}
    method.detach()
    method = BitFit()
    method.attach(vit)
    norms = more - {name for name, _ in method.trainable_parameters()}
    assert norms == {
        'backbone.ln1.weight',
        *(f'backbone.layers.{i}.ln{j}.weight' for i in (0, 1) for j in (1, 2)),
    }
