"""gleam-mm doctor: what is wrong with a config is found, all of it in one go."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from backbones import CONFIGS, WIDTH
from PIL import Image
from safetensors.torch import load_file, save_file

from gleam_mm.config import RecipeError, recipes
from gleam_mm.datasets.sources import source_of
from gleam_mm.doctor import examine, runtime, schedule
from gleam_mm.doctor.findings import Findings
from gleam_mm.doctor.schedule import HIGHEST_RATES
from gleam_mm.engine import launch

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / 'gleam_mm' / 'weights' / 'vit-mini.safetensors'


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """A folder of pictures, and what loads a recipe for it."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 3), ('test', 2)):
        for name in ('robin', 'wren'):
            folder = tmp_path / 'birds' / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f'{index}.png')

    def load(recipe='vit-mini_gleam-l_folder', **options):
        data = {f'{split}_dataloader.dataset.data_root': 'birds' for split in ('train', 'val')}
        test = {'data_root': 'birds', 'data_prefix': 'test'}
        data |= {f'test_dataloader.dataset.{key}': value for key, value in test.items()}
        few = {'train_dataloader.batch_size': 4}
        return recipes.load(recipe, {**data, **few, **options.pop('options', {})})

    return load


def levels(findings):
    return {finding.level for finding in findings}


def told(findings, level, topic, *parts):
    """Whether there is a finding with these words, in its text or in what it would change."""
    return any(
        all(part in f'{finding.text}; {finding.change}' for part in parts)
        for finding in findings
        if (finding.level, finding.topic) == (level, topic)
    )


def test_a_training_that_is_as_it_should_be(birds):
    cfg = birds()
    before = cfg.to_dict()
    findings = examine(cfg, methods=['lora', 'linear'])
    assert levels(findings) == {'ok'}
    assert cfg.to_dict() == before
    assert told(findings, 'ok', 'train', '16 images of 2 classes, 8 of each')
    assert told(findings, 'ok', 'train', '16 pictures read')
    assert told(findings, 'ok', 'splits', 'no picture of val or test is trained on')
    assert told(findings, 'ok', 'splits', 'val and test have no picture in common')
    assert told(findings, 'ok', 'weights', 'every weight of the backbone is there')
    assert told(findings, 'ok', 'images', 'normalised by half, as the weights expect')
    assert told(findings, 'ok', 'method', 'GLEAM: 38,016 parameters')
    assert told(findings, 'ok', 'schedule', '400 steps, 4 an epoch')
    sizes = [finding.size for finding in findings if finding.topic == 'memory']
    assert len(sizes) == 3 and sizes[0] > sizes[1] > sizes[2] > WEIGHTS.stat().st_size


def test_all_mistakes_are_gathered(birds, tmp_path):
    folder = tmp_path / 'birds'
    (folder / 'train' / 'robin' / '0.png').write_bytes(b'no picture')
    (folder / 'val' / 'wren' / '0.png').write_bytes((folder / 'train/wren/3.png').read_bytes())
    for index in range(100):
        Image.new('L', (9, 9), index).save(folder / 'train' / 'robin' / f'more{index}.png')
    torn = load_file(WEIGHTS)
    del torn['layers.3.ln1.weight']
    save_file(torn, tmp_path / 'torn.safetensors')
    options = {
        'model.backbone.init_cfg.checkpoint': 'torn.safetensors',
        'model.petl.alpha': 10.0,
        'optim_wrapper.optimizer.lr': 0.1,
        'optim_wrapper.clip_grad': None,
        'test_dataloader.dataset.data_prefix': 'train',
        'train_dataloader.batch_size': 200,
        'train_dataloader.drop_last': True,
        'data_preprocessor.mean': [0.0, 0.0, 0.0],
        'data_preprocessor.std': [1.0, 1.0, 1.0],
        'param_scheduler.0.end': 100,
    }
    findings = examine(birds(options=options), pictures=200)
    for level, topic, *parts in (
        ('error', 'train', '1 of 116 pictures', '0.png: cannot be read', 'skip_unreadable=N'),
        ('warning', 'train', 'uneven: wren has 8 images, others up to 108', 'ClassBalanced'),
        ('warning', 'train', 'small: half of them have 9 pixels', 'enlarged to 32'),
        ('warning', 'val', '1 of its files are copies', 'wren/0.png is', 'wren/3.png'),
        ('error', 'test', '116 of its pictures are trained on as well'),
        ('error', 'weights', 'torn.safetensors', 'layers.3.ln1.weight'),
        ('ok', 'method', 'GLEAM: 38,016 parameters'),  # it goes on without the weights
        ('warning', 'method', 'alpha=10', 'model.petl.alpha=1'),
        ('warning', 'method', 'not clipped', 'at a rate of 1e-2', 'clip_grad.max_norm=1.0'),
        ('warning', 'schedule', 'lr=0.1 is above', 'lr=0.01 or less'),
        ('error', 'schedule', 'batch_size=200 is more than the 116 images, and drop_last'),
        ('ok', 'memory', 'a step of 200 images'),
    ):
        assert told(findings, level, topic, *parts), (level, topic, parts, findings)


def test_schedules(birds):
    options = {'param_scheduler.0.end': 100, 'train_dataloader.drop_last': True}
    options |= {'train_dataloader.batch_size': 5, 'optim_wrapper.optimizer.lr': 1e-5}
    findings = Findings()
    schedule.check(birds('vit-mini_lora_folder', options=options), findings, images=16)
    assert told(findings, 'error', 'schedule', 'the warm-up of 300 steps', 'param_scheduler.0.end=')
    assert told(findings, 'warning', 'schedule', 'drop_last leaves 1 of 16 images')
    assert told(findings, 'warning', 'schedule', 'lr=1e-05 is low', 'lr=1e-3')
    findings = Findings()
    cfg = birds('vit-mini_linear_folder', options={'train_cfg.max_epochs': 10})
    schedule.check(cfg, findings, images=16)
    assert told(findings, 'error', 'schedule', 'max_epochs=10', 'begins at epoch 10')
    assert told(findings, 'warning', 'schedule', '40 steps are few')


def test_keys_that_loops_and_hooks_do_not_know():
    cfg = recipes.load('vit-mini_linear_mini-digits')
    cfg.train_cfg.max_epoch = 2
    cfg.val_cfg.fp = True
    cfg.default_hooks.checkpoint.save_bests = 'auto'
    cfg.custom_hooks = [dict(type='Nope')]
    cfg.train_dataloader.batchsize = 4
    cfg.param_scheduler[0].start_facter = 1e-3
    cfg.val_evaluator.top = 1
    cfg.env_cfg.cudnn_benchmrk = True
    findings = Findings()
    runtime.check(cfg, findings)
    assert [finding.topic for finding in findings] == [
        *('train_cfg', 'train_dataloader', 'val_cfg', 'default_hooks.checkpoint'),
        *('custom_hooks.0', 'param_scheduler.0', 'val_evaluator', 'env_cfg'),
    ]
    for finding, text in zip(
        findings,
        (
            "train_cfg.max_epoch: EpochTrainLoop has no such option (did you mean 'max_epochs'?)",
            "train_dataloader.batchsize: DataLoader has no such option (did you mean 'batch_size'?",
            "val_cfg.fp: FoldingValLoop has no such option (did you mean 'fp16'?)",
            "checkpoint.save_bests: AdapterCheckpointHook has no such option (did you mean 'save_b",
            "custom_hooks.0.type='Nope': there is no such component",
            "start_facter: WarmupLR has no such option (did you mean 'start_factor'?)",
            "val_evaluator.top: Accuracy has no such option (did you mean 'topk'?)",
            "env_cfg.cudnn_benchmrk: there is no such option (did you mean 'cudnn_benchmark'?)",
        ),
        strict=True,
    ):
        assert text in finding.text


@pytest.mark.parametrize(
    'recipe', ['vit-mini_gleam-l_mini-digits', 'vit-b_lora_folder', 'vit-mini_glora_mini-land']
)
def test_those_that_they_have_are_known(recipe):
    findings = Findings()
    runtime.check(recipes.load(recipe), findings)
    assert not findings


def test_weights_that_are_not_there_and_data_that_are_not(birds):
    cfg = birds('vit-b_lora_folder', options={'train_dataloader.dataset.data_root': 'nowhere'})
    arch = dict(embed_dims=64, num_layers=1, num_heads=2, feedforward_channels=64)
    cfg.model.backbone.arch, cfg.model.head.in_channels = arch, 64
    findings = examine(cfg)
    assert told(findings, 'error', 'classes', 'nowhere/train is no folder')
    assert told(findings, 'error', 'weights', 'are not there', 'gleam-mm fetch-weights vit-b')
    assert told(findings, 'warning', 'images', 'by the preset vit-b', 'normalize=half')
    assert told(findings, 'ok', 'memory', 'a step of 4 images')


def test_random_backbones_normalisation_and_pooling(birds):
    cfg = birds('vit-mini_lora_folder')
    cfg.model.backbone = CONFIGS['timm-vit']
    cfg.model.neck = dict(type='TokenPool', mode='mean')
    cfg.model.head.in_channels = WIDTH
    cfg.data_preprocessor.update(recipes.NORMALIZATIONS['imagenet'])
    findings = examine(cfg)
    assert told(findings, 'error', 'backbone', 'no pretrained weights')
    assert told(findings, 'warning', 'images', 'timm', 'data_preprocessor.normalize=half')
    assert told(findings, 'warning', 'pooling', "takes 'mean'", 'PooledTIMMBackbone')
    cfg.model.allow_random_backbone = True
    cfg.model.neck = None
    findings = examine(cfg)
    assert told(findings, 'warning', 'backbone', 'its weights are random')
    assert told(findings, 'error', 'step', 'add a neck that pools')


@pytest.mark.slow
def test_a_test_by_the_pictures_of_val(birds, tmp_path):
    change = {'test_dataloader.dataset.data_prefix': 'val'}
    findings = examine(birds('vit-mini_linear_folder', options=change), pictures=1)
    assert told(findings, 'warning', 'test', '6 of its 6 pictures are those of val', 'prefix=test')
    (tmp_path / 'birds/test/wren/0.png').write_bytes(
        (tmp_path / 'birds/val/wren/0.png').read_bytes()
    )
    findings = examine(birds('vit-mini_linear_folder'), pictures=1)
    assert told(findings, 'warning', 'test', '1 of its 4 pictures are those of val')

    files = sorted((tmp_path / 'birds' / 'train').rglob('*.png'))
    with (tmp_path / 'birds.csv').open('w', newline='') as out:
        csv.writer(out).writerows([('path', 'class'), *((f, f.parent.name) for f in files)])
    options = {'test_dataloader.dataset.data_prefix': 'test'}  # which a table does not look at
    cfg = recipes.load('vit-mini_linear_csv', options)
    launch.use_source(cfg, source_of('birds.csv'), options)
    findings = examine(cfg, pictures=1)
    (found,) = (finding for finding in findings if finding.topic == 'test' and finding.change)
    assert 'are those of val' in found.text
    assert found.change.endswith('lines with test in a column split, which --data reads')


def test_trainings_to_no_purpose(birds, tmp_path):
    (tmp_path / 'birds').rename(tmp_path / 'all')
    (tmp_path / 'birds').mkdir()
    for split in ('train', 'val', 'test'):
        (tmp_path / 'birds' / split).mkdir()
        (tmp_path / 'birds' / split / 'birds').symlink_to(tmp_path / 'all' / split)
    findings = examine(birds('vit-mini_linear_folder'), pictures=1)
    assert told(findings, 'warning', 'train', 'all images are of one class, birds', 'that folder')


def test_classes_of_other_data(birds, tmp_path):
    (tmp_path / 'birds' / 'val' / 'wren').rename(tmp_path / 'birds' / 'val' / 'owl')
    findings = examine(birds('vit-mini_linear_folder'))
    assert told(findings, 'error', 'val', 'none of the 2 `classes`: owl')


def test_unknown_methods_and_devices_are_told(birds):
    with pytest.raises(RecipeError, match='method=lorra: unknown method'):
        examine(birds(), methods=['lorra'])
    with pytest.raises(RuntimeError, match='nonsense'):
        examine(birds(), device='nonsense')


@pytest.mark.parametrize('damage', [False, True])
def test_the_command(birds, damage, run_command):
    options = ['train_dataloader.dataset.data_root=birds', 'val_dataloader.dataset.data_root=birds']
    options += ['test_dataloader.dataset.data_root=' + ('nowhere' if damage else 'birds')]
    words = ['vit-mini_linear_folder', '--pictures', '2', '--cfg-options', *options]
    code, out = run_command(*words, *(['--json'] if damage else []))
    assert code == int(damage)
    if damage:
        found = json.loads(out)
        assert found[0].keys() == {'level', 'topic', 'text', 'change', 'size'}
        assert {finding['level'] for finding in found} >= {'ok', 'error'}
    else:
        levels = [line.split()[0] for line in out.splitlines()]
        assert set(levels) == {'ok', 'warning'} and len(levels) > 6


def test_rates_are_those_of_the_record():
    """The highest rate within five points of the best, over both tasks that chose."""
    accuracies = defaultdict(lambda: defaultdict(list))
    with (ROOT / 'benchmarks' / 'minivtab' / 'results.csv').open() as file:
        for row in csv.DictReader(file):
            if row['study'] == 'minivtab-rates' and row['state'] == 'complete':
                rate = float(row['options'].partition('lr=')[2])
                accuracies[row['method']][rate].append(float(row['accuracy']))
    told = dict(HIGHEST_RATES)
    assert told.pop('full') == 1e-3  # which docs/digits.md has
    for preset, highest in told.items():
        means = {rate: np.mean(found) for rate, found in accuracies[preset].items()}
        good = [rate for rate, mean in means.items() if mean >= max(means.values()) - 5]
        assert max(good) == highest, (preset, means)
