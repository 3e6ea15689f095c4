"""Adapters on a stand-in of the hub: a folder that has the client's methods."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import EntryNotFoundError

import gleam_mm
from gleam_mm.checkpoint import CheckpointError, read_adapter, save_adapter
from gleam_mm.inference import hub


class Hub:
    """What a client of the hub does, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.made = []

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        assert exist_ok
        self.made.append((repo_id, private))

    def create_commit(self, repo_id, operations, *, commit_message):
        assert repo_id in dict(self.made)
        for operation in operations:
            with operation.as_file() as file:
                path = self.folder / repo_id / operation.path_in_repo
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())
        return SimpleNamespace(commit_url=f'https://hub/{repo_id}/commit/1')

    def hf_hub_download(self, repo_id, filename, *, revision=None):
        path = self.folder / repo_id / filename
        if not path.is_file():
            raise EntryNotFoundError(str(path))
        return str(path)


@pytest.fixture
def adapter(saved_adapter):
    """As after a training that was tested."""
    tensors, metadata = read_adapter(saved_adapter)
    metadata['metrics'] = {'val': {'accuracy/top1': 50.0}, 'test': {'accuracy/top1': 62.5}}
    metadata['classes'] = ['cat', 'dog', '<b>']
    save_adapter(saved_adapter, tensors, metadata)
    return saved_adapter


def test_there_and_back(adapter, tmp_path):
    api = Hub(tmp_path / 'hub')
    assert hub.push_to_hub(adapter, 'me/pets', private=True, api=api).startswith('https://hub/me')
    assert api.made == [('me/pets', True)]
    path = hub.from_hub('me/pets', api=api)
    assert path.read_bytes() == adapter.read_bytes()
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    here, there = (gleam_mm.Predictor(p)(picture) for p in (adapter, path))
    assert here == there


def test_the_card_is_what_the_hub_reads(adapter, tmp_path):
    text = hub.card(adapter, 'me/pets')
    data = ModelCard(text).data
    assert data.to_dict()['library_name'] == 'gleam-mm'
    assert data.base_model == 'timm/vit_base_patch16_224.augreg_in21k'
    assert data.pipeline_tag == 'image-classification'
    assert 'gleam' in data.tags
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ('accuracy/top1', 62.5)
    assert "gleam_mm.Predictor(gleam_mm.from_hub('me/pets'))" in text
    assert '| accuracy/top1 | 62.5 |' in text
    assert '3 classes: cat, dog, \\<b\\>' in text
    assert read_adapter(adapter)[1]['backbone_fingerprint'] in text


def test_what_is_not_there_or_damaged(adapter, tmp_path):
    api = Hub(tmp_path / 'hub')
    with pytest.raises(EntryNotFoundError):
        hub.from_hub('me/nothing', api=api)
    hub.push_to_hub(adapter, 'me/pets', api=api)
    file = tmp_path / 'hub' / 'me' / 'pets' / 'adapter.safetensors'
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r'adapter\.safetensors'):
        hub.from_hub('me/pets', api=api)
    (tmp_path / 'no.safetensors').write_text(json.dumps({}))
    with pytest.raises(CheckpointError):
        hub.push_to_hub(tmp_path / 'no.safetensors', 'me/other', api=api)
    assert not Path(tmp_path / 'hub' / 'me' / 'other').exists()
