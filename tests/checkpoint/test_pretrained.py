"""Getting pretrained weights, with the network played by a function."""

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from gleam_mm.checkpoint import load_backbone
from gleam_mm.checkpoint.convert import ConversionError
from gleam_mm.checkpoint.pretrained import FetchError, fetch, listing
from gleam_mm.checkpoint.sources import FILE, SOURCES, destination
from gleam_mm.config import recipes
from gleam_mm.registry import MODELS


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('backbone', SOURCES)
def test_the_sources_are_those_that_timm_knows(backbone):
    repository = SOURCES[backbone].repository
    assert get_pretrained_cfg(repository.removeprefix('timm/')).hf_hub_id == repository


@pytest.mark.slow
@pytest.mark.parametrize('backbone', SOURCES)
def test_what_is_fetched_is_what_the_config_loads(backbone, tmp_path):
    def download(repo_id, filename):
        asked.append((repo_id, filename))
        name = repo_id.removeprefix('timm/').partition('.')[0]
        save_file(timm.create_model(name, pretrained=False).state_dict(), tmp_path / filename)
        return str(tmp_path / filename)

    asked = []
    path, _ = fetch(backbone, download=download)
    assert asked == [(SOURCES[backbone].repository, FILE)]
    settings = Config.fromfile(recipes.families()['backbones'][backbone]).model.backbone
    assert str(path) == settings.pop('init_cfg').checkpoint
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        load_backbone(MODELS.build(settings), path)


def test_without_a_network_it_says_what_to_do():
    def download(repo_id, filename):
        raise ConnectionError('no route to host')

    with pytest.raises(FetchError) as told:
        fetch('timm-swin-b', download=download)
    source = SOURCES['timm-swin-b']
    for part in (
        source.url,
        source.original,
        f'gleam-mm convert-weights --target timm FILE {destination("timm-swin-b")}',
    ):
        assert part in str(told.value)
    assert not destination('timm-swin-b').exists()


def test_a_file_that_is_there_is_not_downloaded_again():
    path = destination('vit-b')
    path.parent.mkdir()
    torch.save({}, path)
    with pytest.raises(ConversionError, match='--force'):
        fetch('vit-b', download=None)


def test_unknown_backbones_are_told():
    with pytest.raises(FetchError, match='vit-b, swin-b'):
        fetch('vit-x')


def test_the_listing_names_all():
    text = listing()
    for backbone, source in SOURCES.items():
        assert source.url in text
        assert source.original in text
        assert str(destination(backbone)) in text
