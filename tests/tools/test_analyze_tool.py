"""tools/analyze.py as a user runs it."""

import json

import matplotlib.image
import numpy as np
import pytest
import torch

from gleam_mm.checkpoint import save_adapter
from gleam_mm.config import recipes
from gleam_mm.engine import fill_num_classes
from gleam_mm.registry import MODELS


def train(config, folder, **petl):
    """Writes the adapter of a model that stands for a trained one."""
    cfg = recipes.load(config, {f'model.petl.{key}': value for key, value in petl.items()})
    fill_num_classes(cfg)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for _, parameter in model.petl.trainable_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    tensors = model.state_dict()
    tensors.pop('_extra_state')
    metadata = {
        'backbone_fingerprint': model.backbone_fingerprint(),
        'metrics': {'test': {'accuracy/top1': 12.5}},
    }
    save_adapter(folder / 'adapter.safetensors', tensors, metadata)
    return folder / 'adapter.safetensors'


@pytest.fixture
def adapter(config, tmp_path):
    return train(config, tmp_path)


def picture(path):
    """A figure's pixels, which are not all the same."""
    pixels = matplotlib.image.imread(path)
    assert pixels.std() > 0.05
    return pixels


@pytest.mark.slow
def test_homogeneity_in_a_process_of_its_own(run, config, adapter, tmp_path):
    done = run(
        'analyze.py',
        'homogeneity',
        f'a={config}:{adapter}',
        f'b={config}:{adapter}',
        *('--roles', 'proj', 'fc1', '--max-images', 8, '--batch-size', 4, '--out', 'figures'),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    assert done.row('a').split()[:2] == ['proj', 'frozen']
    folder = tmp_path / 'figures'
    listed = [line for line in done.out.splitlines() if line.startswith('figures/')]
    assert sorted(listed) == sorted(f'figures/{file.name}' for file in folder.iterdir())
    assert {file.name for file in folder.glob('*.png')} == {
        *(f'homogeneity_{name}_{role}.png' for name in 'ab' for role in ('proj', 'fc1')),
        *(f'homogeneity_adjacent_{role}.png' for role in ('proj', 'fc1')),
    }
    for file in folder.glob('*.png'):
        picture(file)
    content = json.loads((folder / 'homogeneity.json').read_text())
    first, second = content['subjects']
    assert first['accuracy']['value'] == 12.5
    assert first['roles'] == second['roles']
    assert first['data']['images'] == 8
    assert np.shape(first['roles']['fc1']['update']['cka']) == (2, 2)
    assert {'update', 'cosine', 'cka'} <= content['definitions'].keys()


def test_routing(call, config, adapter, tmp_path):
    done = call('analyze.py', 'routing', f'{config}:{adapter}', '--out', tmp_path / 'r')
    assert done.code == 0, done.err
    content = json.loads((tmp_path / 'r' / 'routing.json').read_text())
    (subject,) = content['subjects']
    assert subject['name'] == 'tiny'
    assert [np.sum(site['share']) for site in subject['sites']] == pytest.approx(
        [subject['top_k']] * 8
    )
    for name in ('layers', 'classes', 'balance'):
        picture(tmp_path / 'r' / f'routing_tiny_{name}.png')


@pytest.mark.parametrize('command', ['attention', 'cam'])
def test_maps(command, call, config, adapter, tmp_path):
    done = call(
        *('analyze.py', command, f'{config}:{adapter}', '--images', 4, 2, '--out', tmp_path / 'm')
    )
    assert done.code == 0, done.err
    content = json.loads((tmp_path / 'm' / f'{command}_tiny.json').read_text())
    assert [image['image'] for image in content['images']] == ['4', '2']
    picture(tmp_path / 'm' / f'{command}_tiny.png')


def test_mistakes_take_one_line_and_exit_with_2(call, config, adapter):
    trained = f'{config}:{adapter}'
    for arguments, told in [
        (['homogeneity', config], 'tiny-untrained: no update: the output of GLEAM is that of the'),
        (['homogeneity', trained, '--roles', 'attn'], 'GLEAM has no update at attn'),
        (['homogeneity', trained, trained], 'subjects with the same name: tiny, tiny'),
        (['homogeneity', trained, '--max-images', '0'], '--max-images 0: choose at least 1'),
        (['homogeneity', adapter], 'no config is named, and none is run unasked; give CONFIG:'),
        (['homogeneity', 'nothing_at_all'], 'nothing_at_all'),
        (['routing', f'{config}:missing.safetensors'], 'missing.safetensors: no such file'),
        (['attention', trained, '--images', '48'], "the split 'test' has 48 images"),
        (['attention', trained, '--device', 'cuda:9'], ''),
        (['cam', trained, '--method', 'x'], '--method x: choose among gradcam'),
    ]:
        done = call('analyze.py', *arguments)
        assert done.code == 2, arguments
        assert done.err.startswith('analyze.py: error: ')
        assert told in done.err
        assert 'Traceback' not in done.err
        assert done.err.count('\n') == 1


def test_a_method_without_a_gate_or_updates(call, config, tmp_path):
    options = ('--cfg-options', 'model.petl.moe=False')
    done = call('analyze.py', 'routing', config, *options)
    assert 'tiny-untrained: GLEAM has no mixture of experts to look into' in done.err
    probe = tmp_path / 'probe.py'
    probe.write_text(
        f"_base_ = [{str(config)!r}]\nmodel = dict(petl=dict(_delete_=True, type='LinearProbe'))\n"
    )
    done = call('analyze.py', 'homogeneity', probe)
    assert done.code == 2
    assert 'LinearProbe has no updates: it trains the head alone' in done.err
