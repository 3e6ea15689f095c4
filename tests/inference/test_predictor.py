"""A picture, classified by an adapter file alone, against the training's own test."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from backbones import CONFIGS, WIDTH
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image, ImageOps
from timm.data import create_transform, resolve_data_config
from torch import nn

import gleam_mm
from gleam_mm.arguments import ArgumentError
from gleam_mm.checkpoint import FINGERPRINT, CheckpointError, save_adapter
from gleam_mm.datasets import UnreadableImageError
from gleam_mm.engine.checkpoint_hook import adapter_metadata
from gleam_mm.inference import Prediction, preprocessing
from gleam_mm.inference.pictures import as_rgb
from gleam_mm.inference.resizing import TooLargeImageError
from gleam_mm.inference.weights import options
from gleam_mm.models import build_model, timm_models
from gleam_mm.registry import DATASETS, MODELS

CLASSES = ['cat', 'dog']
FOLDER_PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='ResizeEdge', scale=37, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
TIMM_VIT = dict(patch_size=8, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture
def folder(tmp_path):
    """Pictures of several shapes, kinds and modes; as data of two classes."""
    generator = np.random.default_rng(0)
    for name, shape in (
        ('cat/a.png', (40, 60, 3)),
        ('cat/b.jpg', (91, 47, 3)),
        ('dog/c.png', (32, 32, 3)),
        ('dog/d.png', (50, 50)),
    ):
        file = tmp_path / 'pictures' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(file)
    return tmp_path / 'pictures'


@pytest.fixture
def train(tmp_path):
    """Writes the adapter of a training with some data; gives its path, model and test data."""

    def build(dataset, preprocessor, classes=2, pretrained=True):
        weights = tmp_path / 'weights.pth'
        torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), weights)
        named = dict(type='Pretrained', checkpoint=str(weights)) if pretrained else None
        cfg = Config(
            dict(
                default_scope='gleam_mm',
                model=dict(
                    type='PETLClassifier',
                    backbone={**copy.deepcopy(CONFIGS['vit']), 'init_cfg': named},
                    head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=classes),
                    petl=dict(type='LoRA', rank=2),
                    allow_random_backbone=not pretrained,
                ),
                data_preprocessor=preprocessor,
                test_dataloader=dict(dataset=dataset),
            )
        )
        model = build_model(cfg)
        for parameter in model.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter)
        data = DATASETS.build(cfg.test_dataloader.dataset)
        tensors = {key: value for key, value in model.state_dict().items() if key != FINGERPRINT}
        metadata = adapter_metadata(SimpleNamespace(model=model, cfg=cfg), data)
        save_adapter(tmp_path / 'adapter.safetensors', tensors, metadata)
        return tmp_path / 'adapter.safetensors', model, data

    return build


@pytest.fixture
def trained(train, folder):
    """A training on the folder."""
    dataset = dict(
        type='CustomDataset', data_root=str(folder), pipeline=FOLDER_PIPELINE, test_mode=True
    )
    return train(dataset, dict(mean=[120.0, 110, 100], std=[60.0, 50, 40], to_rgb=True))


def scores_of_test(model, data):
    """What the test of a training gives: classes x scores."""
    samples = model.test_step(pseudo_collate([data[i] for i in range(len(data))]))
    return torch.stack([sample.pred_score for sample in samples])


def scores(predictions, classes):
    """Predictions of all classes in the order of the classes."""
    rows = [{best.label: best.score for best in row} for row in predictions]
    return torch.tensor([[row[name] for name in classes] for row in rows])


def test_files_as_in_the_test_of_the_training(trained, folder):
    path, model, data = trained
    predictor = gleam_mm.Predictor(path, device='cpu')
    assert predictor.classes == CLASSES
    found = predictor(folder, top_k=2)
    assert list(found) == [data.get_data_info(i)['img_path'] for i in range(4)]
    expected = scores_of_test(model, data)
    assert torch.allclose(scores(found.values(), CLASSES), expected, atol=1e-6)
    for file, row in zip(found, expected, strict=True):
        best = predictor(file)
        assert isinstance(best, Prediction)
        assert best.label == CLASSES[row.argmax()]
        assert best.score == pytest.approx(row.max().item())
        assert predictor([file], top_k=1) == [[best]]


def test_pictures_in_memory_are_as_in_files(trained, folder):
    path, *_ = trained
    predictor = gleam_mm.Predictor(path, device='cpu')
    for file in ('cat/a.png', 'dog/d.png'):
        picture = Image.open(folder / file)
        array = np.array(picture)
        tensor = torch.from_numpy(np.array(picture.convert('RGB'))).permute(2, 0, 1)
        expected = predictor(folder / file, top_k=2)
        content = (folder / file).read_bytes()
        for given in (
            *(content, picture, array, array.astype(np.int64), array / 255, tensor, tensor / 255),
            (tensor / 255).to(torch.float64),
        ):
            assert predictor(given, top_k=2) == expected
    for wrong, error, message in (
        (np.zeros((2, 2, 4), np.uint8), ValueError, r'shape \(2, 2, 4\)'),
        (torch.full((3, 2, 2), -1.0), ValueError, 'without normalising them'),
        (np.full((2, 2), 200.0, 'float32'), ValueError, 'of float32 with numbers from 200 to 200'),
        (np.full((2, 2), 256), ValueError, 'of int64 with numbers from 256 to 256: give integers'),
        (np.full((2, 2), np.nan), ValueError, 'floats from 0 to 1'),
        (np.zeros((2, 2), bool), ValueError, 'a picture of bool: give'),
        (7, TypeError, 'int is no picture'),
    ):
        with pytest.raises(error, match=message):
            predictor(wrong)
    assert predictor(torch.ones(3, 2, 2, dtype=torch.bfloat16)) == predictor(torch.ones(3, 2, 2))
    for wrong in (0, -1, '2', 1.5, True):
        with pytest.raises(ArgumentError, match=r'top_k=.*: choose a whole number of at least 1'):
            predictor(folder / 'cat/a.png', top_k=wrong)


def test_images_of_pillow_are_as_their_files(trained, train, folder, tmp_path):
    """They are turned as EXIF data say, and grey with transparency is put on a canvas."""
    pixels = Image.open(folder / 'cat/a.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, clear = tmp_path / 'turned.jpg', tmp_path / 'clear.png'
    pixels.save(turned, exif=exif)
    alpha = Image.new('L', pixels.size)
    alpha.paste(255, (0, 0, 20, 40))
    Image.merge('LA', (pixels.convert('L'), alpha)).save(clear)
    upright = Image.fromarray(np.asarray(ImageOps.exif_transpose(Image.open(turned))))
    path, *_ = trained
    loading = gleam_mm.Predictor(path, device='cpu')
    dataset = dict(type='MiniVTAB', split='test', indices=2, pipeline=[dict(type='PackInputs')])
    preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)
    path, *_ = train(dataset, preprocessor, classes=10)
    in_memory = gleam_mm.Predictor(path, device='cpu')
    for predictor in (loading, in_memory):
        for file in (turned, clear):
            given = (file, file.read_bytes(), Image.open(file))
            assert len({predictor(picture).score for picture in given}) == 1
        assert predictor(turned) == predictor(upright)
        assert predictor(upright) != predictor(np.asarray(Image.open(turned)))
    canvas = as_rgb(clear)[:, 20:]
    assert (canvas == (124, 117, 104)).all()


def test_a_backbone_that_was_drawn(train):
    """Nothing names its weights: they come from their seed again."""
    dataset = dict(type='MiniVTAB', split='test', indices=2, pipeline=[dict(type='PackInputs')])
    preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)
    path, model, data = train(dataset, preprocessor, classes=10, pretrained=False)
    predictor = gleam_mm.Predictor(path, device='cpu')
    pictures = [data[i]['inputs'] for i in range(2)]
    found = scores(predictor(pictures, top_k=10), predictor.classes)
    assert torch.allclose(found, scores_of_test(model, data), atol=1e-6)


@pytest.mark.parametrize('to_rgb', [False, True])
def test_a_dataset_in_memory(train, tmp_path, to_rgb):
    """Its pipeline neither loads nor resizes; files do, to the size of the backbone."""
    dataset = dict(type='MiniVTAB', split='test', indices=12, pipeline=[dict(type='PackInputs')])
    preprocessor = dict(mean=[120.0, 110, 100], std=[60.0, 50, 40], to_rgb=to_rgb)
    path, model, data = train(dataset, preprocessor, classes=10)
    files = []
    for i in range(len(data)):
        array = data[i]['inputs'].permute(1, 2, 0).numpy()
        files.append(str(tmp_path / f'{i:02}.png'))
        Image.fromarray(array[..., ::-1].copy() if to_rgb else array).save(files[-1])
    predictor = gleam_mm.Predictor(path, device='cpu')
    found = scores(predictor(files, top_k=10), predictor.classes)
    assert torch.allclose(found, scores_of_test(model, data), atol=1e-6)
    large = Image.open(files[0]).resize((64, 96), Image.Resampling.NEAREST)
    assert 0 < predictor(large).score <= 1


def test_pictures_that_cannot_be_read(trained, folder, monkeypatch):
    monkeypatch.setattr('gleam_mm.inference.predictor._BATCH', 2)
    path, *_ = trained
    predictor = gleam_mm.Predictor(path, device='cpu')
    good = str(folder / 'cat/a.png')
    (folder / 'broken.png').write_bytes(b'no picture')
    files = [good, str(folder / 'broken.png'), good, str(folder / 'none.png'), good]
    outcomes = list(predictor.each(files))
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [
        *(Prediction, UnreadableImageError, Prediction, UnreadableImageError, Prediction)
    ]
    assert str(outcomes[1]).startswith(f'{files[1]}: cannot be read')
    with pytest.raises(UnreadableImageError, match=r'broken\.png'):
        predictor(files)
    (folder / 'empty' / '__MACOSX').mkdir(parents=True)
    for name in ('__MACOSX/._a.png', '__MACOSX/a.png', '._a.png', '.ipynb_checkpoints/a.png'):
        (folder / 'empty' / name).parent.mkdir(exist_ok=True)
        (folder / 'empty' / name).write_bytes(b'of a system, no picture')
    with pytest.raises(FileNotFoundError, match='no pictures in this folder'):
        predictor(folder / 'empty')
    (folder / '.copy').symlink_to('empty')
    (folder / '.copy' / 'a.png').symlink_to(good)
    told = predictor(folder / '.copy')  # a hidden one that is named
    assert told == {str(folder / '.copy' / 'a.png'): predictor(good)}
    with pytest.raises(UnreadableImageError, match='the picture: cannot be read'):
        predictor(b'no picture')
    for dtype in (np.uint8, np.float32):
        with pytest.raises(ValueError, match=r'a picture of shape \(0, 32, 3\) has no pixels'):
            predictor(np.zeros((0, 32, 3), dtype))


def test_a_strip_is_refused_before_it_is_enlarged(trained, folder):
    path, *_ = trained
    predictor = gleam_mm.Predictor(path, device='cpu')
    good, thin = str(folder / 'cat/a.png'), str(folder / 'thin.png')
    for size, enlarged in (((20_000, 1), '740000 x 37'), ((1, 20_000), '37 x 740000')):
        Image.new('L', size).save(thin)
        refused, kept = predictor.each([thin, good])
        told = f'{thin}: {size[0]} x {size[1]} pixels would become {enlarged}: crop it'
        assert type(refused) is TooLargeImageError and str(refused).startswith(told)
        assert kept == predictor(good)
    with pytest.raises(TooLargeImageError, match=r'^the picture: 20000 x 1 pixels'):
        predictor(np.zeros((1, 20_000), np.uint8))
    Image.new('L', (1000, 1)).save(thin)  # 37000 x 37
    assert predictor(thin).score > 0


@pytest.mark.parametrize(
    ('step', 'size', 'became'),
    [
        (dict(type='ResizeEdge', scale=300, edge='short'), (1000, 3), '100000 x 300'),
        (dict(type='ResizeEdge', scale=300, edge='width'), (3, 1000), '300 x 100000'),
        (dict(type='ResizeEdge', scale=300, edge='height'), (1000, 3), '100000 x 300'),
        (dict(type='ResizeEdge', scale=300, edge='long'), (1000, 3), '300 x 0'),
        (dict(type='ResizeEdge', scale=300, edge='width'), (1000, 3), '300 x 0'),
        (dict(type='Resize', scale=[300, 300], keep_ratio=True), (1000, 1), '300 x 0'),
        (dict(type='ResizeToCover', scale=[300, 200]), (1000, 1), '200000 x 200'),
        (dict(type='Pad', pad_to_square=True), (8000, 3), '8000 x 8000'),
        (dict(type='Pad', size_divisor=16_000), (3, 3), '16000 x 16000'),
    ],
)
def test_what_no_transform_makes_of_a_picture(step, size, became):
    pipeline = preprocessing.build([step])
    with pytest.raises(UnreadableImageError, match=f'pixels would become {became}: ') as refused:
        pipeline({'img': np.zeros((*size[::-1], 3), np.uint8)})
    assert isinstance(refused.value, TooLargeImageError) == (not became.endswith(' 0'))


def test_weights_that_moved(trained, folder, tmp_path, monkeypatch):
    path, *_ = trained
    expected = gleam_mm.Predictor(path, device='cpu')(folder)
    moved = tmp_path / 'elsewhere' / 'weights.pth'
    moved.parent.mkdir()
    (tmp_path / 'weights.pth').rename(moved)
    with pytest.raises(FileNotFoundError, match=r'weights are not there .*weights\.pth.*GLEAM_W'):
        gleam_mm.Predictor(path)
    assert gleam_mm.Predictor(path, weights=moved, device='cpu')(folder) == expected
    for place in (moved, moved.parent):
        monkeypatch.setenv('GLEAM_WEIGHTS', str(place))
        assert gleam_mm.Predictor(path, device='cpu')(folder) == expected
    monkeypatch.setenv('GLEAM_WEIGHTS', str(folder))
    with pytest.raises(FileNotFoundError, match='weights are not there'):
        gleam_mm.Predictor(path)
    torch.manual_seed(7)
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), moved)
    with pytest.raises(CheckpointError, match=r'adapter\.safetensors: .*fingerprint'):
        gleam_mm.Predictor(path, weights=moved)


def test_weights_of_a_recipe_that_are_not_there_can_be_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('GLEAM_WEIGHTS', raising=False)
    backbone = dict(init_cfg=dict(checkpoint='checkpoints/vit-b_in21k.safetensors'))
    with pytest.raises(FileNotFoundError, match=r"get them by 'gleam-mm fetch-weights vit-b', or"):
        options(backbone, 'a.safetensors', None)


def test_a_device_that_is_not_there_is_told_by_its_flag():
    with pytest.raises(ValueError, match=r'gpu: torch cannot compute there \(.*--device'):
        gleam_mm.Predictor('a.safetensors', device='gpu')


@pytest.mark.parametrize(
    ('step', 'message'),
    [
        (dict(type='Lambda'), r'pipeline\.0\.type=.Lambda. is none of the transforms'),
        (dict(type='Resize', scale=4, backend='a/b'), r'pipeline\.0\.backend=.a/b. is no option'),
        (
            dict(type='LoadImageFromFile', backend_args=dict(backend='http')),
            r'pipeline\.0\.backend_args=.* is no option of LoadImageFromFile',
        ),
    ],
)
def test_a_pipeline_that_is_not_built(step, message):
    with pytest.raises(CheckpointError, match=message):
        preprocessing.build([step])


def test_an_adapter_without_preprocessing(trained, folder, tmp_path):
    """As those of release 0.1.0: the config of the training has it."""
    path, *_ = trained
    tensors, metadata = gleam_mm.checkpoint.read_adapter(path)
    del metadata['pipeline']
    old = tmp_path / 'old.safetensors'
    save_adapter(old, tensors, metadata)
    with pytest.raises(CheckpointError, match='how its pictures were prepared; give the config'):
        gleam_mm.Predictor(old)
    parts = {key: metadata[key] for key in ('backbone', 'head')}
    config = tmp_path / 'training.py'
    config.write_text(
        f'model = dict(type="PETLClassifier", petl={metadata["method"]}, '
        f'**{json.loads(json.dumps(parts))})\n'
        f'data_preprocessor = {metadata["data_preprocessor"]}\n'
        f'test_dataloader = dict(dataset=dict(pipeline={FOLDER_PIPELINE}))\n'
    )
    expected = gleam_mm.Predictor(path, device='cpu')(folder)
    assert gleam_mm.Predictor(old, config=config, device='cpu')(folder) == expected


@pytest.fixture
def pets(tmp_path):
    """A model of timm that is saved in a plain loop; and a file with weights as timm's are."""
    torch.manual_seed(0)
    name = 'vit_tiny_patch16_224.augreg_in21k'
    model = timm.create_model(name, img_size=32, num_classes=5, **TIMM_VIT)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    model = timm.create_model(name, img_size=32, num_classes=2, **TIMM_VIT)
    state = torch.load(tmp_path / 'weights.pth')
    model.load_state_dict({k: v for k, v in state.items() if 'head' not in k}, strict=False)
    gleam_mm.attach(model, 'gleam-l')
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    gleam_mm.save(model, tmp_path / 'pets.safetensors', classes=CLASSES, options=TIMM_VIT)
    return tmp_path / 'pets.safetensors', model.eval()


def test_a_model_of_timm_as_timm_prepares_pictures(pets, folder, tmp_path):
    path, model = pets
    predictor = gleam_mm.Predictor(path, weights=tmp_path / 'weights.pth', device='cpu')
    told = resolve_data_config({'input_size': (3, 32, 32)}, pretrained_cfg=model.pretrained_cfg)
    transform = create_transform(**told)
    found = predictor(folder, top_k=2)
    with torch.no_grad():
        expected = [
            model(transform(Image.open(file).convert('RGB'))[None])[0].softmax(-1) for file in found
        ]
    assert torch.allclose(scores(found.values(), CLASSES), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize('mode', ['center', 'squash'])
@pytest.mark.parametrize('crop_pct', [0.9, 1.0])
@pytest.mark.parametrize('size', [(32, 32), (32, 64), (64, 32), (40, 48), (32, 33)])
def test_pictures_are_those_of_timm_to_the_pixel(size, crop_pct, mode):
    config = dict(input_size=(3, *size), crop_pct=crop_pct, crop_mode=mode)
    model = timm.create_model('vit_tiny_patch16_224', num_classes=2, depth=1)
    told = resolve_data_config(config, pretrained_cfg=model.pretrained_cfg)
    transform = create_transform(**told, normalize=False)
    described = timm_models.preprocessing(model, config)['pipeline']
    pipeline = preprocessing.build(json.loads(json.dumps(described)))
    for shape in ((50, 70), (70, 50), (64, 64), (31, 200), (75, 33)):
        noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        ours = pipeline(dict(img=noise[..., ::-1].copy()))['inputs'].flip(0)
        assert torch.equal(ours, transform(Image.fromarray(noise))), shape


def test_a_model_of_timm_needs_its_weights(pets, tmp_path, monkeypatch):
    path, _ = pets
    monkeypatch.setattr('gleam_mm.models.timm_models.try_to_load_from_cache', lambda *_: None)
    with pytest.raises(FileNotFoundError, match=r'the weights of vit_tiny_patch16_224\.augreg'):
        gleam_mm.Predictor(path)
    # Where timm has downloaded them
    asked = []
    monkeypatch.setattr(
        'gleam_mm.models.timm_models.try_to_load_from_cache',
        lambda *names: asked.append(names) or str(tmp_path / 'weights.pth'),
    )
    gleam_mm.Predictor(path, device='cpu')
    assert asked == [('timm/vit_tiny_patch16_224.augreg_in21k', 'model.safetensors')]
    torch.save({'x': torch.ones(1)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=r'pets\.safetensors: '):
        gleam_mm.Predictor(path, weights=tmp_path / 'other.pth')


def test_a_model_of_timm_without_a_classifier(tmp_path):
    name = 'vit_tiny_patch16_224.augreg_in21k'
    model = timm.create_model(name, img_size=32, num_classes=0, **TIMM_VIT)
    gleam_mm.attach(model, 'lora')
    gleam_mm.save(model, tmp_path / 'features.safetensors', options=TIMM_VIT)
    with pytest.raises(CheckpointError, match=r'features\.safetensors: vit_tiny.* num_classes=0'):
        gleam_mm.Predictor(tmp_path / 'features.safetensors')


def test_a_model_that_does_not_read_rgb(tmp_path):
    options = {**TIMM_VIT, 'in_chans': 1}
    model = timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=2, **options)
    weights, path = tmp_path / 'weights.pth', tmp_path / 'grey.safetensors'
    torch.save(model.state_dict(), weights)
    gleam_mm.attach(model, 'lora')
    gleam_mm.save(model, path, options=options)
    told = r'vit_tiny_patch16_224.* reads in_chans=1, and pictures have 3 channels'
    with pytest.raises(CheckpointError, match=rf'grey\.safetensors: {told}'):
        gleam_mm.Predictor(path, weights, 'cpu')
    with pytest.raises(CheckpointError, match=told):
        gleam_mm.AdapterBank(adapters={'grey': path}, weights=weights, device='cpu')


def test_squashed_pictures(pets, folder, tmp_path):
    _, model = pets
    config = dict(crop_mode='squash', crop_pct=1.0, mean=(0.1, 0.2, 0.3))
    path = tmp_path / 'squash.safetensors'
    gleam_mm.save(model, path, classes=CLASSES, options=TIMM_VIT, data_config=config)
    predictor = gleam_mm.Predictor(path, weights=tmp_path / 'weights.pth', device='cpu')
    own = {**model.pretrained_cfg, **config, 'input_size': (3, 32, 32)}
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=own))
    file = folder / 'cat/a.png'
    with torch.no_grad():
        expected = model(transform(Image.open(file))[None]).softmax(-1)
    assert torch.allclose(scores([predictor(file, top_k=2)], CLASSES), expected, atol=1e-5)
    with pytest.raises(ValueError, match="crop_mode='border'"):
        gleam_mm.save(model, path, options=TIMM_VIT, data_config=dict(crop_mode='border'))
    for wrong, told in (
        ('crop_pc', r"'crop_pc' \(did you mean 'crop_pct'\?\); it has input_size, "),
        ('img_size', "'img_size'"),  # of which timm takes a model's own
    ):
        with pytest.raises(ArgumentError, match=f'^data_config has no {told}'):
            gleam_mm.save(model, path, options=TIMM_VIT, data_config={wrong: 1})
    for key, value in (
        *(('interpolation', 'foo'), ('crop_pct', 1.3), ('crop_pct', '1'), ('std', (0, 0, 0))),
        *(('mean', 0.5), ('mean', (1, 2)), ('input_size', 64), ('input_size', (64, 64))),
    ):
        with pytest.raises(ArgumentError, match=f'^data_config has {key}=.* it has to be '):
            gleam_mm.save(model, path, options=TIMM_VIT, data_config={key: value})


def test_the_only_class_of_a_model_has_the_sigmoid_of_its_logit(folder, tmp_path):
    torch.manual_seed(0)
    name = 'vit_tiny_patch16_224.augreg_in21k'
    model = timm.create_model(name, img_size=32, num_classes=1, **TIMM_VIT)
    weights, path = tmp_path / 'weights.pth', tmp_path / 'cats.safetensors'
    torch.save(model.state_dict(), weights)
    gleam_mm.attach(model, 'lora')
    nn.init.normal_(model.head.weight)
    gleam_mm.save(model, path, classes=['cat'], options=TIMM_VIT)
    predictor = gleam_mm.Predictor(path, weights, 'cpu')
    told = predictor(folder)
    bank = gleam_mm.AdapterBank(adapters={'cats': path}, weights=weights, device='cpu')
    transform = create_transform(
        **resolve_data_config({'input_size': (3, 32, 32)}, pretrained_cfg=model.pretrained_cfg)
    )
    with torch.no_grad():
        for file, (label, score) in told.items():
            logit = model.eval()(transform(Image.open(file).convert('RGB'))[None])
            assert label == 'cat'
            assert score == pytest.approx(logit.sigmoid().item(), abs=1e-5)
            assert bank(file, 'cats').score == pytest.approx(score, abs=1e-5)
    assert len({round(score, 3) for _, score in told.values()}) > 1


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize('kept', ['of the model', 'in 32 bits'])
def test_a_model_that_was_trained_in_another_precision(dtype, kept, folder, tmp_path):
    torch.manual_seed(0)
    name = 'vit_tiny_patch16_224.augreg_in21k'
    model = timm.create_model(name, img_size=32, num_classes=2, **TIMM_VIT)
    weights, path = tmp_path / 'weights.pth', tmp_path / 'pets.safetensors'
    torch.save(model.state_dict(), weights)
    petl = gleam_mm.attach(model.to(dtype), 'lora')
    if kept == 'in 32 bits':
        petl.float()
    for parameter in petl.parameters():
        nn.init.normal_(parameter)
    gleam_mm.save(model, path, classes=CLASSES, options=TIMM_VIT)
    found = gleam_mm.Predictor(path, weights, 'cpu')(folder, top_k=2)
    told = resolve_data_config({'input_size': (3, 32, 32)}, pretrained_cfg=model.pretrained_cfg)
    transform, exact = create_transform(**told), model.float().eval()
    with torch.no_grad():
        expected = [
            exact(transform(Image.open(file).convert('RGB'))[None])[0].softmax(-1) for file in found
        ]
    assert torch.allclose(scores(found.values(), CLASSES), torch.stack(expected), atol=1e-5)
    bank = gleam_mm.AdapterBank(adapters={'pets': path}, weights=weights, device='cpu')
    assert bank(folder, 'pets', top_k=2) == found
    other = timm.create_model(name, img_size=32, num_classes=2, **TIMM_VIT)
    gleam_mm.attach(other, 'lora')
    gleam_mm.save(other, tmp_path / 'other.safetensors', classes=CLASSES, options=TIMM_VIT)
    told = f'in float32, but the backbone of this bank is rounded to {dtype}: it needs a bank'
    with pytest.raises(CheckpointError, match=told.replace('torch.', '')):
        bank.add('other', tmp_path / 'other.safetensors')
