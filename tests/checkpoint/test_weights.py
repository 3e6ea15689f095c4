"""The backbones that ship with the package: their files, and what their features are worth."""

import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open
from torch import nn

from gleam_mm.checkpoint import load_backbone, resolve_path
from gleam_mm.config.recipes import config_root
from gleam_mm.minivtab import MiniVTAB
from gleam_mm.registry import MODELS


@pytest.fixture(scope='module', params=['vit-mini', 'swin-mini'])
def name(request):
    return request.param


@pytest.fixture(scope='module')
def cfg(name):
    return Config.fromfile(config_root() / f'_base_/backbones/{name}.py')


@pytest.fixture(scope='module')
def file(cfg):
    return cfg.model.backbone.init_cfg.checkpoint


def _backbone(cfg, file=None):
    settings = cfg.model.backbone.copy()
    settings.pop('init_cfg')
    torch.manual_seed(0)
    backbone = MODELS.build(dict(settings, _scope_='gleam_mm'))
    if file is None:
        backbone.init_weights()
    else:
        load_backbone(backbone, file)
    backbone.eval()
    return backbone


@pytest.fixture(scope='module')
def pretrained(cfg, file):
    return _backbone(cfg, file)


def test_the_file_is_small_and_in_half_precision(name, file):
    path = resolve_path(file)
    assert path.stat().st_size <= 6.5e6
    with safe_open(path, framework='pt') as content:
        assert content.metadata()['config'] == f'{name}_procedural.py'
        tensors = [content.get_tensor(key) for key in content.keys()]  # noqa: SIM118
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float16}


def test_the_file_has_every_weight_of_the_configs_backbone(cfg, file, pretrained):
    """`load_backbone` is strict; every weight also has to differ from an initial one."""
    assert 1e6 < sum(p.numel() for p in pretrained.parameters()) < 3.2e6
    initial = dict(_backbone(cfg).named_parameters())
    assert all(not torch.equal(value, initial[key]) for key, value in pretrained.named_parameters())


def _images(split):
    dataset = MiniVTAB(task='textures', split=split)
    items = [dataset.get_data_info(i) for i in range(min(len(dataset), 800))]
    images = torch.stack([torch.from_numpy(item['img']) for item in items])
    labels = torch.tensor([item['gt_label'] for item in items])
    return images.permute(0, 3, 1, 2), labels


@torch.no_grad()
def _features(backbone, images):
    features = backbone(images / 127.5 - 1)[-1].double()
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features  # Swin's are maps


def _error(backbone):
    """Share of the test that a ridge classifier on frozen features gets wrong."""
    data = {split: _images(split) for split in ('train800', 'val200', 'test')}
    features = {split: _features(backbone, images) for split, (images, _) in data.items()}
    assert all(torch.isfinite(value).all() for value in features.values())
    centre, spread = features['train800'].mean(0), features['train800'].std(0)
    inputs = {
        split: nn.functional.pad((value - centre) / spread, (0, 1), value=1.0)
        for split, value in features.items()
    }
    x, y = inputs['train800'], nn.functional.one_hot(data['train800'][1]).double()

    def wrong(split, penalty):
        weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ y)
        return ((inputs[split] @ weights).argmax(1) != data[split][1]).double().mean().item()

    best = min((0.1, 1.0, 10.0, 100.0), key=lambda penalty: wrong('val200', penalty))
    return wrong('test', best)


@pytest.mark.slow
def test_a_probe_of_its_features_beats_one_of_random_features(
    cfg, pretrained, tmp_path, monkeypatch
):
    monkeypatch.setenv('GLEAM_CACHE', str(tmp_path))
    assert _error(pretrained) < 0.6 * _error(_backbone(cfg))
