"""Merged checkpoints: the same outputs from MMPretrain and timm alone."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from backbones import BACKBONES, CONFIGS, NECKS, WIDTH
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain import get_model
from mmpretrain.models import ImageClassifier, TimmClassifier
from PIL import Image
from torch import nn
from vtab_tree import make_vtab_tree

from gleam_mm import compat
from gleam_mm.checkpoint import CheckpointError, load_adapter, load_from_local, save_adapter
from gleam_mm.models.merge import merge_checkpoint
from gleam_mm.petl import MergeError
from gleam_mm.registry import DATASETS, MODELS, own_scope

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def trained(tmp_path):
    """Makes the config, the adapter file and the outputs of a model that stands for a trained one.

    The frozen weights come from a file, as a user's do.
    """

    def make(kind, petl):
        torch.manual_seed(0)
        weights = tmp_path / 'backbone.pth'
        torch.save(BACKBONES[kind]().state_dict(), weights)
        init_cfg = dict(type='Pretrained', checkpoint=str(weights))
        model = dict(
            type='PETLClassifier',
            backbone={**CONFIGS[kind], 'init_cfg': init_cfg},
            neck=NECKS[kind],
            head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=None),
            petl=petl,
        )
        pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
        cfg = Config(
            dict(
                model=model,
                data_preprocessor=dict(num_classes=7, mean=[0.0] * 3, std=[255.0] * 3, to_rgb=True),
                test_dataloader=dict(
                    batch_size=2,
                    sampler=dict(type='DefaultSampler', shuffle=False),
                    dataset=dict(type='VTAB1K', task='kitti', split='test', pipeline=pipeline),
                ),
                test_cfg={},
                test_evaluator=dict(type='Accuracy', topk=1),
            )
        )
        model = {**model, 'head': {**model['head'], 'num_classes': 7}}
        classifier = MODELS.build(model).eval()
        for _, parameter in classifier.petl.trainable_parameters():
            nn.init.normal_(parameter, std=0.1)
        tensors = classifier.state_dict()
        tensors.pop('_extra_state')
        adapter = tmp_path / 'adapter.safetensors'
        save_adapter(
            adapter,
            tensors,
            dict(
                backbone_fingerprint=classifier.backbone_fingerprint(),
                classes=[f'class {index}' for index in range(7)],
            ),
        )
        load_adapter(classifier, adapter)
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            return cfg, adapter, images, classifier.head(classifier.extract_feat(images))

    return make


LORA = dict(type='LoRA', rank=4, sites=['qkv', 'fc1'])


@pytest.mark.parametrize('kind', CONFIGS)
def test_mmpretrain_gives_the_same_outputs(kind, trained, tmp_path):
    cfg, adapter, images, expected = trained(kind, LORA)
    before = cfg.pretty_text
    out, config = merge_checkpoint(cfg, adapter, tmp_path / 'merged.pth')
    assert cfg.pretty_text == before
    model = get_model(str(config), pretrained=str(out))
    assert type(model) is (TimmClassifier if 'timm' in kind else ImageClassifier)
    assert model._dataset_meta['classes'][3] == 'class 3'
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_mmpretrain_needs_no_gleam_mm(trained, tmp_path):
    cfg, adapter, images, expected = trained('vit', LORA)
    out, config = merge_checkpoint(cfg, adapter, tmp_path / 'merged.pth')
    torch.save(images, tmp_path / 'images.pt')
    # Only the file with the patches is run, as a script: MMPretrain may need them to be imported.
    script = f"""
import runpy, sys, torch
runpy.run_path({compat.__file__!r})['apply']()
from mmpretrain import get_model
model = get_model({str(config)!r}, pretrained={str(out)!r})
with torch.no_grad():
    torch.save(model(torch.load({str(tmp_path / 'images.pt')!r})), {str(tmp_path / 'outputs.pt')!r})
assert 'gleam_mm' not in sys.modules
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(tmp_path / 'outputs.pt')
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind', ['timm-vit', 'timm-swin'])
def test_timm_loads_it_as_its_own(kind, trained, tmp_path):
    cfg, adapter, images, expected = trained(kind, LORA)
    out, _ = merge_checkpoint(cfg, adapter, tmp_path / 'merged.pth')
    options = {key: value for key, value in CONFIGS[kind].items() if key != 'type'}
    model = timm.create_model(**options, num_classes=7, checkpoint_path=str(out)).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_a_pth_checkpoint_and_the_tool(trained, tmp_path, capsys, monkeypatch):
    cfg, adapter, images, expected = trained('vit', LORA)
    state_dict = load_from_local(str(adapter))['state_dict']
    meta = dict(dataset_meta=dict(classes=['a'] * 7))
    torch.save(dict(state_dict=state_dict, meta=meta), tmp_path / 'epoch_1.pth')
    cfg.dump(tmp_path / 'config.py')
    names = ['config.py', 'epoch_1.pth', 'out/merged.pth']
    monkeypatch.setattr(sys, 'argv', ['merge.py', *(str(tmp_path / name) for name in names)])
    runpy.run_path(str(TOOLS / 'merge.py'), run_name='__main__')
    assert 'merged.pth' in capsys.readouterr().out
    merged = tmp_path / 'out/merged.pth'
    model = get_model(str(merged.with_suffix('.py')), pretrained=str(merged))
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_merged_is_refused_and_nothing_is_written(trained, tmp_path):
    cfg, adapter, *_ = trained('vit', dict(type='GLEAM', rank=4))
    with pytest.raises(MergeError, match='GLEAM cannot be merged: its convolutional experts mix'):
        merge_checkpoint(cfg, adapter, tmp_path / 'merged.pth')
    assert not list(tmp_path.glob('*merged*'))


def test_mistakes(trained, tmp_path):
    cfg, adapter, *_ = trained('vit', LORA)
    with pytest.raises(ValueError, match=r'merged\.onnx: the merged checkpoint is a \.pth file'):
        merge_checkpoint(cfg, adapter, tmp_path / 'merged.onnx')
    with pytest.raises(CheckpointError, match=r'backbone\.pth: no checkpoint of a training'):
        merge_checkpoint(cfg, tmp_path / 'backbone.pth', tmp_path / 'merged.pth')
    (tmp_path / 'mine.py').write_text('precious = 1')
    with pytest.raises(FileExistsError, match=r'mine\.py exists already'):  # and not the config
        merge_checkpoint(cfg, adapter, tmp_path / 'mine.pth')
    cfg.model.petl.rank = 5
    with pytest.raises(CheckpointError, match=r'adapter\.safetensors: .*has the shape'):
        merge_checkpoint(cfg, adapter, tmp_path / 'merged.pth')


def test_a_merged_classifier_cannot_be_saved(make_classifier):
    classifier = make_classifier('LoRA')
    classifier.petl.merge()
    with pytest.raises(RuntimeError, match=r'call petl\.unmerge\(\) before saving'):
        classifier.state_dict()
    classifier.petl.unmerge()
    assert 'petl.local.layers/0/attn/qkv.up' in classifier.state_dict()


PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
LIST = dict(type='VTAB1K', task='kitti', split='test')
FOLDER = dict(type='CustomDataset', data_root='pictures')
NAMES = [str(index) for index in range(7)]


@pytest.mark.parametrize(
    ('dataset', 'theirs'),
    [
        (LIST, True),
        (dict(LIST, indices=2), True),
        (dict(LIST, hold_out=0.4, take_held_out=True), False),
        (dict(type='FewShotFGVC', task='cars', split='test'), True),
        (dict(FOLDER, skip_unreadable=1, hold_out=0), True),
        (dict(FOLDER, classes=NAMES, only_classes=True), True),
        (dict(FOLDER, classes=NAMES[::-1], only_classes=True), False),
        (dict(FOLDER, hold_out=0.2, take_held_out=True), False),
        (dict(FOLDER, part='test'), True),
        (dict(type='MiniVTAB', task='defects', split='test', indices=8), False),
    ],
)
def test_mmpretrain_tests_it_with_its_own_config(dataset, theirs, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_vtab_tree(tmp_path / 'data' / 'vtab-1k', ['kitti'])
    make_fgvc_tree(tmp_path / 'data' / 'fgvc')
    for index in NAMES:
        for name in ('a.png', 'b.webp'):
            file = tmp_path / 'pictures' / index / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((32, 32), 99).convert('RGB').save(file)
    cfg, adapter, *_ = trained('vit', LORA)
    pipeline = PIPELINE[1 if dataset['type'] == 'MiniVTAB' else 0 :]
    cfg.test_dataloader.dataset = {**dataset, 'pipeline': pipeline}
    out, config = merge_checkpoint(cfg, adapter, tmp_path / 'merged.pth')
    merged = Config.fromfile(config)
    assert ('custom_imports' in merged) == (not theirs)
    merged.merge_from_dict(dict(load_from=str(out), work_dir='work', log_level='ERROR'))
    merged.test_dataloader.collate_fn = dict(type='default_collate')  # as their tools/test.py does
    runner = Runner.from_cfg(merged)
    tested = runner.test_loop.dataloader.dataset
    assert type(tested).__module__.startswith('mmpretrain.' if theirs else 'gleam_mm.')
    with own_scope():
        ours = DATASETS.build({**dataset, 'pipeline': [], 'test_mode': True})
    assert labels(tested) == labels(ours)
    assert 0 <= runner.test()['accuracy/top1'] <= 100


def labels(dataset):
    """Picture -> label; of pictures without a file, their labels."""
    samples = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [(str(Path(s.get('img_path', ''))), s['gt_label']) for s in samples]


def make_fgvc_tree(root):
    """A tiny set of cars, whose pictures are not beside its lists."""
    for name in ('stanford_cars/annotations', 'stanford_cars/images'):
        (root / name).mkdir(parents=True)
    Image.effect_noise((32, 32), 99).convert('RGB').save(root / 'stanford_cars/images/a.png')
    (root / 'stanford_cars/annotations/test_meta.list').write_text('a.png 5\n')
