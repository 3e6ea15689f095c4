"""MMPretrain's own functions and tools on what tools/train.py has written, as it is."""

from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine import load
from mmengine.registry import DefaultScope
from mmpretrain.apis import (
    FeatureExtractor,
    ImageClassificationInferencer,
    ImageRetrievalInferencer,
    get_model,
)
from PIL import Image
from tiny_vit import TINY_VIT

from gleam_mm import Predictor
from gleam_mm.checkpoint import read_adapter

CONFIG = """
_base_ = [
    'gleam_mm::_base_/methods/gleam-t.py',
    'gleam_mm::_base_/datasets/folder.py',
    'gleam_mm::_base_/schedules/petl_100e.py',
    'gleam_mm::_base_/default_runtime.py',
]
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='VisionTransformer',
        init_cfg=dict(type='Pretrained', checkpoint='{weights}'),
        **{vit},
    ),
    head=dict(type='LinearClsHead', in_channels=32, num_classes=None),
    petl=_base_.method,
)
train_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(data_root='birds'))
val_dataloader = dict(num_workers=0, dataset=dict(data_root='birds'))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, convert_to_iter_based=True),
]
"""


@pytest.fixture(scope='module')
def trained(run, weights, tmp_path_factory):
    """A folder with three classes of pictures, and a training on them."""
    folder = tmp_path_factory.mktemp('birds')
    random = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 4)):
        for name, colour in (('robin', 0), ('parakeet', 1), ('kingfisher', 2)):
            place = folder / 'birds' / split / name
            place.mkdir(parents=True)
            for index in range(number):
                image = random.integers(0, 80, (48, 64, 3), dtype=np.uint8)
                image[..., colour] += 150
                Image.fromarray(image).save(place / f'{index}.png')
    (folder / 'mine.py').write_text(CONFIG.format(weights=weights, vit=TINY_VIT))
    done = run('train.py', 'mine.py', '--work-dir', 'run', cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(autouse=True)
def _in_their_scope(trained, monkeypatch):
    monkeypatch.chdir(trained)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(params=['adapter.safetensors', 'epoch_3.pth'])
def checkpoint(request):
    return f'run/{request.param}'


PICTURES = [f'birds/val/{name}/0.png' for name in ('kingfisher', 'parakeet', 'robin')]


def test_classification(checkpoint):
    expected = Predictor('run/adapter.safetensors')(PICTURES)
    inferencer = ImageClassificationInferencer('run/mine.py', pretrained=checkpoint)
    for told, (label, score) in zip(inferencer(PICTURES), expected, strict=True):
        assert told['pred_class'] == label
        assert told['pred_score'] == pytest.approx(score, abs=1e-5)


def test_features(checkpoint):
    extractor = FeatureExtractor('run/mine.py', pretrained=checkpoint)
    model = get_model('run/mine.py', pretrained=checkpoint)
    (features,) = extractor(PICTURES[0])
    assert features[-1].shape == (32,)
    model.petl.detach()
    frozen = get_model('run/mine.py')
    frozen.petl.detach()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pairs = zip(model.extract_feat(images), frozen.extract_feat(images), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_retrieval(checkpoint):
    model = dict(
        type='ImageToImageRetriever',
        image_encoder=get_model('run/mine.py', pretrained=checkpoint),
        prototype=None,
        topk=1,
    )
    encoder = model['image_encoder']
    retriever = mmpretrain.registry.MODELS.build({**model, 'prototype': torch.zeros(1, 32)})
    retriever._config, retriever._metainfo = encoder._config, None
    retriever._dataset_meta = encoder._dataset_meta
    inferencer = ImageRetrievalInferencer(retriever, prototype='birds/val')
    for picture, (best, *_) in zip(PICTURES, inferencer(PICTURES), strict=True):
        assert best['sample']['img_path'] == picture


@pytest.fixture
def theirs(run, trained):
    """Runs a tool of MMPretrain."""

    def start(tool, *arguments):
        done = run('mmpretrain_tool.py', tool, *arguments, cwd=trained, MPLBACKEND='agg')
        assert done.code == 0, done.err
        return done.out

    return start


@pytest.mark.slow
def test_training_and_testing(theirs):
    theirs('train', 'run/mine.py', '--work-dir', 'theirs')
    ours, again = (read_adapter(f'{folder}/adapter.safetensors')[0] for folder in ('run', 'theirs'))
    assert ours.keys() == again.keys()
    assert all(torch.allclose(ours[name], again[name], atol=1e-5) for name in ours)
    for checkpoint in ('adapter.safetensors', 'epoch_3.pth'):
        theirs('test', 'run/mine.py', f'run/{checkpoint}', '--out', 'pred.pkl')
    theirs('eval_metric', 'pred.pkl', '--metric', 'type=Accuracy', 'topk=1')
    theirs('analyze_results', 'run/mine.py', 'pred.pkl', '--out-dir', 'results')
    assert list(Path('results').rglob('*.png'))
    for result in ('run/epoch_3.pth', 'pred.pkl'):
        theirs('confusion_matrix', 'run/mine.py', result, '--out', 'matrix.pkl')
        assert np.sum(np.asarray(load('matrix.pkl'))) == 12


@pytest.mark.slow
def test_looking(theirs):
    several = ('--output-dir', 'seen', '--show-number', 2, '--mode', 'original')
    theirs('browse_dataset', 'run/mine.py', *several)
    assert list(Path('seen').rglob('*.png'))
    checkpoint = ('--checkpoint', 'run/adapter.safetensors')
    theirs('vis_tsne', 'run/mine.py', *checkpoint, '--work-dir', 'tsne', '--perplexity', 3)
    assert list(Path('tsne').rglob('*.png'))
    vit = ('--vit-like', '--save-path', 'cam.png')
    theirs('vis_cam', PICTURES[0], 'run/mine.py', 'run/adapter.safetensors', *vit)
    assert Path('cam.png').is_file()
    assert 'Params' in theirs('get_flops', 'run/mine.py', '--shape', 32)
