"""What a user names on the command line, and the images that are seen."""

import pytest
import torch
from conformance.cases import logits
from mmengine.config import Config, ConfigDict

from gleam_mm.analysis.pictures import load_pictures
from gleam_mm.analysis.subjects import (
    AnalysisError,
    batches,
    build_dataset,
    choose,
    load_subject,
)
from gleam_mm.checkpoint import CheckpointError, read_adapter, save_adapter
from gleam_mm.errors import UserError
from gleam_mm.registry import MODELS

BACKBONE = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128),
    img_size=32,
    patch_size=8,
)


@pytest.fixture
def trained(tmp_path):
    """A work directory, as training leaves it, and the logits of its model."""
    torch.manual_seed(0)
    weights = tmp_path / 'backbone.pth'
    torch.save(MODELS.build(dict(BACKBONE)).state_dict(), weights)
    loader = dict(
        batch_size=4,
        num_workers=0,
        dataset=dict(
            type='MiniVTAB',
            task='digits',
            split='test',
            indices=6,
            pipeline=[dict(type='PackInputs')],
        ),
    )
    cfg = Config(
        dict(
            default_scope='gleam_mm',
            model=dict(
                type='PETLClassifier',
                backbone={**BACKBONE, 'init_cfg': dict(type='Pretrained', checkpoint=str(weights))},
                head=dict(type='LinearClsHead', in_channels=32, num_classes=None),
                petl=dict(type='LoRA', rank=2),
            ),
            data_preprocessor=dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3),
            train_dataloader=loader,
            test_dataloader=loader,
        )
    )
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    cfg.dump(work_dir / 'tiny.py')
    described = {**cfg.model, 'head': {**cfg.model.head, 'num_classes': 10}}
    model = MODELS.build(described)
    model.eval()
    torch.nn.init.normal_(model.petl.local['layers/0/attn/qkv'].up)
    tensors = model.state_dict()
    tensors.pop('_extra_state')
    metadata = {
        'method': cfg.model.petl.to_dict(),
        'backbone': cfg.model.backbone.to_dict(),
        'neck': None,
        'head': described['head'],
        'data_preprocessor': cfg.data_preprocessor.to_dict(),
        'metrics': {'test': {'accuracy/top1': 42.0}},
        'backbone_fingerprint': model.backbone_fingerprint(),
    }
    save_adapter(work_dir / 'adapter.safetensors', tensors, metadata)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        return work_dir, images, logits(model, images)


def test_every_way_to_name_a_subject(trained, tmp_path):
    work_dir, images, expected = trained
    config, adapter = work_dir / 'tiny.py', work_dir / 'adapter.safetensors'
    lone = tmp_path / 'elsewhere' / 'lone.safetensors'
    lone.parent.mkdir()
    lone.write_bytes(adapter.read_bytes())
    ways = {
        f'{config}:{adapter}': 'tiny',
        f'my run={config}:{adapter}': 'my run',
        f'mine={adapter}': 'mine',
        f'lone={lone}': 'lone',
        f'{lone}': 'elsewhere',
    }
    for text, name in ways.items():
        data = None if ':' in text else str(config)
        subject = load_subject(text, data=data)
        assert subject.name == name
        assert subject.metrics['test']['accuracy/top1'] == 42
        assert not subject.model.training
        with torch.no_grad():
            torch.testing.assert_close(logits(subject.model, images), expected, rtol=0, atol=0)


def test_a_config_beside_a_file_is_not_run_unasked(trained, tmp_path):
    adapter = trained[0] / 'adapter.safetensors'
    folder = tmp_path / 'downloaded'
    folder.mkdir()
    (folder / 'adapter.safetensors').write_bytes(adapter.read_bytes())
    (folder / 'crafted.py').write_text(f'open({str(tmp_path / "ran")!r}, "w").close()')
    for name in ('adapter.safetensors', 'epoch_1.pth'):
        with pytest.raises((ValueError, FileNotFoundError)) as told:
            load_subject(str(folder / name))
        assert name in str(told.value)
    with pytest.raises(ValueError, match=rf'give .*crafted\.py:{folder}/adapter.*, or --data'):
        load_subject(str(folder / 'adapter.safetensors'))
    assert not (tmp_path / 'ran').exists()


def test_a_method_at_its_start(trained):
    work_dir, images, expected = trained
    subject = load_subject(str(work_dir / 'tiny.py'))
    assert (subject.name, subject.checkpoint) == ('tiny-untrained', None)
    with torch.no_grad():
        assert not torch.equal(logits(subject.model, images), expected)
        torch.testing.assert_close(
            subject.model.backbone(images)[0], subject.twin(images)[0], rtol=0, atol=0
        )


def test_what_does_not_fit(trained):
    work_dir, *_ = trained
    text = f'{work_dir / "tiny.py"}:{work_dir / "adapter.safetensors"}'
    with pytest.raises(CheckpointError, match=r'adapter\.safetensors: model\.petl\.rank is 2'):
        load_subject(text, {'model.petl.rank': 3})
    with pytest.raises(FileNotFoundError, match=r'none\.safetensors: no such file'):
        load_subject(f'{work_dir / "tiny.py"}:{work_dir / "none.safetensors"}')


def test_options_of_an_adapter_alone_are_checked(trained):
    work_dir, *_ = trained
    adapter, data = str(work_dir / 'adapter.safetensors'), str(work_dir / 'tiny.py')
    with pytest.raises(ValueError, match=r"adapter\.safetensors: option 'modle\.x': .*'model'"):
        load_subject(adapter, {'modle.x': 1}, data)
    with pytest.raises(ValueError, match=r'data_preprocessor\.std'):
        load_subject(adapter, {'data_preprocessor.std': [0, 0, 0]}, data)
    named = load_subject(adapter, {'data_preprocessor.normalize': 'half'}, data)
    assert named.model.data_preprocessor.std.flatten().tolist() == [127.5] * 3


@pytest.mark.parametrize('alone', [True, False])
def test_options_of_dataloaders_are_those_of_the_data(trained, alone):
    work_dir, *_ = trained
    config, adapter = work_dir / 'tiny.py', work_dir / 'adapter.safetensors'
    text = str(adapter) if alone else f'{config}:{adapter}'
    subject = load_subject(text, {'test_dataloader.dataset.indices': 3}, str(config))
    assert len(build_dataset(subject.cfg, 'test')) == 3


def test_images_of_a_wrapped_training_dataset_are_prepared_as_for_a_test(trained):
    cfg = load_subject(str(trained[0] / 'tiny.py')).cfg
    augmented = dict(cfg.test_dataloader.dataset, pipeline=[dict(type='RandomFlip', prob=1.0)])
    cfg.train_dataloader.dataset = ConfigDict(
        type='RepeatDataset', times=2, dataset=ConfigDict(augmented)
    )
    dataset = build_dataset(cfg, 'train')
    assert len(dataset) == 12
    expected = build_dataset(cfg, 'test')
    assert torch.equal(dataset[7]['inputs'], expected[1]['inputs'])


def test_images_come_evenly_from_the_whole_split():
    assert choose(5, None) == choose(5, 9) == [0, 1, 2, 3, 4]
    assert choose(10, 4) == [0, 2, 5, 7]
    assert choose(10_000, 3) == [0, 3333, 6666]


def test_batches(trained):
    subject = load_subject(str(trained[0] / 'tiny.py'))
    dataset = build_dataset(subject.cfg, 'test')
    found = list(batches(subject, dataset, [4, 0, 5], 2))
    assert [len(images) for images, _ in found] == [2, 1]
    labels = [int(sample.gt_label) for _, samples in found for sample in samples]
    assert labels == [int(dataset[index]['data_samples'].gt_label) for index in (4, 0, 5)]
    expected = dataset[4]['inputs'].float() / 127.5 - 1
    torch.testing.assert_close(found[0][0][0], expected, atol=1e-5, rtol=0)


def test_folders_of_images_have_the_classes_that_were_trained(trained, tmp_path):
    work_dir, *_ = trained
    tensors, metadata = read_adapter(work_dir / 'adapter.safetensors')
    named = tmp_path / 'named.safetensors'
    save_adapter(named, tensors, {**metadata, 'classes': [*map(str, range(10))]})
    for name in ('3', '7'):
        (tmp_path / 'images' / name).mkdir(parents=True)
        (tmp_path / 'images' / name / 'a.png').touch()
    folder = dict(_delete_=True, type='CustomDataset', data_prefix=str(tmp_path / 'images'))
    subject = load_subject(f'{work_dir / "tiny.py"}:{named}', {'test_dataloader.dataset': folder})
    dataset = build_dataset(subject.cfg, 'test')
    assert [dataset.get_data_info(i)['gt_label'] for i in range(2)] == [3, 7]


def test_missing_splits_and_data(trained):
    subject = load_subject(str(trained[0] / 'tiny.py'))
    with pytest.raises(UserError, match="the config has no 'val_dataloader'"):
        build_dataset(subject.cfg, 'val')
    subject.cfg.test_dataloader.dataset = dict(type='VTAB1K', name='cifar', data_root='nowhere')
    with pytest.raises(UserError):
        build_dataset(subject.cfg, 'test')


def test_pictures(trained, tmp_path):
    subject = load_subject(str(trained[0] / 'tiny.py'))
    pictures = load_pictures(subject, 'test', None)
    assert pictures.names == ['0', '1', '3', '4']
    raw = build_dataset(subject.cfg, 'test')[3]['inputs'].permute(1, 2, 0)
    assert abs(pictures.shown[2].astype(int) - raw.numpy()).max() <= 1
    with pytest.raises(AnalysisError, match=r"--images 6: the split 'test' has 6 images"):
        load_pictures(subject, 'test', ['6'])
    with pytest.raises(FileNotFoundError, match=r'--images a\.png: no such file'):
        load_pictures(subject, 'test', ['a.png'])
    (tmp_path / 'b.png').touch()
    with pytest.raises(AnalysisError, match='MiniVTAB has its images in memory'):
        load_pictures(subject, 'test', [str(tmp_path / 'b.png')])


def test_a_picture_from_a_file(trained, tmp_path):
    import cv2
    import numpy as np

    subject = load_subject(str(trained[0] / 'tiny.py'))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels[..., ::-1])
    root = tmp_path / 'images'
    (root / 'x').mkdir(parents=True)
    cv2.imwrite(str(root / 'x' / '0.png'), pixels)
    subject.model.data_preprocessor.to_rgb = True
    subject.model.data_preprocessor._channel_conversion = True
    subject.cfg.test_dataloader.dataset = dict(
        type='CustomDataset',
        data_root=str(root),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    pictures = load_pictures(subject, 'test', [str(tmp_path / 'a.png'), '0'])
    assert pictures.labels == [None, 0]
    np.testing.assert_array_equal(pictures.shown[0], pixels)
