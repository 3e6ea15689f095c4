"""tools/train.py and tools/test.py, run as a user would."""

import json
import re
import shlex
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from mmengine import load
from PIL import Image
from torch.utils.data import DataLoader

from gleam_mm.checkpoint import read_adapter
from gleam_mm.config import recipes
from gleam_mm.models import load_model, params
from gleam_mm.registry import DATASETS, scope_of

CHECKOUT = recipes.config_root().parent


def scalars(work_dir, key):
    """What was logged under ``key``, over all iterations or epochs."""
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line[key] for line in lines if key in line]


@pytest.fixture(scope='module')
def trained(run, config, tmp_path_factory):
    """Three epochs with a seed; the folder that the tool ran in, and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    return folder, run('train.py', config, '--seed', 3, cwd=folder)


def test_training_ends_with_a_summary(trained):
    folder, done = trained
    assert done.code == 0, done.err
    assert re.fullmatch(r'\d+\.\d\d % on test, with the final weights', done.row('accuracy'))
    assert done.row('trainable').startswith('1,248 parameters')
    assert ', and 330 of the head' in done.row('trainable')
    adapter = folder / 'work_dirs' / 'tiny' / 'adapter.safetensors'
    counted = params.count_config(recipes.load(adapter.with_name('tiny.py'))).adapter_bytes
    assert counted < adapter.stat().st_size < counted + 2500  # the metadata
    shown = done.row('adapter')
    assert shown.startswith('work_dirs/tiny/adapter.safetensors (')
    assert shown.endswith(f'({adapter.stat().st_size / 1e3:.1f} KB)')


def test_the_log_is_plain_and_the_config_is_in_the_file(trained):
    folder, done = trained
    lines = [line for line in done.out.splitlines() if 'Epoch(train)' in line]
    assert len(lines) == 3 * 4
    assert 'Epoch(val)' in done.out
    (log,) = (folder / 'work_dirs' / 'tiny').glob('*/*.log')
    assert str(log) in done.out
    for bulk in ('Config:', 'System environment:', 'Hooks will be executed'):
        assert bulk in log.read_text()
        assert bulk not in done.out
    assert '━' not in done.out


@pytest.mark.slow
def test_the_command_to_try_next_gives_the_same_accuracy(trained, run):
    folder, done = trained
    program, command, *arguments = shlex.split(done.row('try next'))
    assert (Path(program).name, command) == ('gleam-mm', 'test')
    dumped = (folder / 'work_dirs' / 'tiny' / 'tiny.py').read_text()
    tested = run('test.py', *arguments, '--out', 'predictions.pkl', cwd=folder)
    assert tested.code == 0, tested.err
    assert (folder / 'predictions.pkl').is_file()
    assert (folder / 'work_dirs' / 'tiny' / 'tiny.py').read_text() == dumped
    accuracy = float(done.row('accuracy').split()[0])
    assert float(tested.row('accuracy/top1')) == pytest.approx(accuracy, abs=0.005)


def test_a_checkpoint_gives_the_same_accuracy(trained, call, config, tmp_path):
    folder, done = trained
    checkpoint = folder / 'work_dirs' / 'tiny' / 'epoch_3.pth'
    out = tmp_path / 'metrics.json'
    flags = ['--work-dir', tmp_path / 'work', '--out', out, '--out-item', 'metrics']
    tested = call('test.py', config, checkpoint, *flags)
    assert tested.code == 0, tested.err
    accuracy = float(done.row('accuracy').split()[0])
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(accuracy, abs=0.005)


@pytest.mark.parametrize('how', ['path', 'latest'])
def test_resuming_ends_where_the_whole_run_ended(trained, call, config, tmp_path, how):
    folder, whole = trained
    work_dir = tmp_path / 'work_dirs' / 'tiny'
    work_dir.mkdir(parents=True)
    done_before = (folder / 'work_dirs' / 'tiny' / 'epoch_2.pth').read_bytes()
    (work_dir / 'epoch_2.pth').write_bytes(done_before)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'))
    resume = ['--resume', work_dir / 'epoch_2.pth'] if how == 'path' else ['--resume']
    done = call('train.py', config, '--seed', 3, *resume)
    assert done.code == 0, done.err
    assert 'Epoch(train) [2]' not in done.out.replace('  ', ' ')
    losses = scalars(folder / 'work_dirs' / 'tiny', 'loss')
    assert scalars(work_dir, 'loss') == pytest.approx(losses[8:], abs=1e-6)
    assert done.row('accuracy') == whole.row('accuracy')


def test_the_text_in_a_checkpoint_is_never_run(trained, call, config, tmp_path):
    """MMEngine runs ``meta['config']`` of the checkpoint that it resumes from as Python."""
    checkpoint = torch.load(
        trained[0] / 'work_dirs' / 'tiny' / 'epoch_2.pth', weights_only=True, map_location='cpu'
    )
    checkpoint['meta']['config'] = f"open({str(tmp_path / 'run')!r}, 'w')\n"
    torch.save(checkpoint, tmp_path / 'crafted.pth')
    done = call('train.py', config, '--seed', 3, '--resume', tmp_path / 'crafted.pth')
    assert done.code == 0, done.err
    assert not (tmp_path / 'run').exists()


def test_other_flags(call, config, tmp_path):
    flags = ['--amp', '--no-validate', '--auto-scale-lr', '--no-pin-memory']
    options = ['--cfg-options', 'train_cfg.max_epochs=2', 'model.petl.rank=2']
    flags += ['--resume', 'auto']
    done = call('train.py', config, '--work-dir', 'here', *flags, *options)
    assert done.code == 0, done.err
    assert 'no checkpoint in here to resume: starting at the beginning' in done.out
    assert 'Epoch(val)' not in done.out
    assert 'validation' not in done.out
    rates = scalars(tmp_path / 'here', 'lr')
    assert max(rates) == pytest.approx(1e-3 / 2, rel=0.3)  # batches of 16, the rate is for 32
    assert np.isfinite(scalars(tmp_path / 'here', 'loss')).all()


def test_a_terminal_shows_one_bar_and_the_summary(run_on_terminal, config, tmp_path):
    done = run_on_terminal('train.py', config, cwd=tmp_path)
    assert done.code == 0, done.err
    shown = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', done.out)
    lines = [line.split('\r')[-1].rstrip() for line in shown.splitlines()]
    bars = [
        line for line in re.split(r'[\r\n]+', shown) if '━' in line and line.startswith('epoch')
    ]
    assert len(bars) > 3
    assert re.search(r'epoch 3/3 .* 100% loss \d\.\d{4}  val \d+\.\d\d % in 0:\d\d', bars[-1])
    assert all(len(line) <= 100 for line in bars)
    assert any(line.startswith('testing') for line in lines)
    assert any(line.startswith('accuracy') for line in lines)
    assert 'INFO' not in shown
    assert done.out.rfind('\x1b[?25h') > done.out.rfind('\x1b[?25l')  # the cursor is back
    (log,) = (tmp_path / 'work_dirs' / 'tiny').glob('*/*.log')
    assert str(log.relative_to(tmp_path)) in shown
    assert 'Epoch(train)' in log.read_text()


@pytest.mark.slow
def test_the_demo_transfers_within_three_epochs(run, tmp_path):
    """The config of ``make demo``, from another directory, with the backbone that ships."""
    demo = 'configs/gleam/vit-mini_gleam-l_mini-digits.py'
    done = run('train.py', demo, '--cfg-options', 'train_cfg.max_epochs=3', cwd=tmp_path)
    assert done.code == 0, done.err
    assert float(done.row('accuracy').split()[0]) > 70
    assert done.row('trainable').startswith('38,016 parameters')
    assert done.out.rstrip().endswith('gleam-mm train vit-mini_linear_mini-digits')


BACKBONE = """
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128),
        img_size=224,
        patch_size=32,
    ),
    head=dict(type='LinearClsHead', in_channels=32, num_classes=None),
    allow_random_backbone=True,
)
"""


@pytest.fixture
def birds(tmp_path):
    """A folder of images in three colours, the tutorial's config, a tiny backbone."""
    random = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 4)):
        for name, colour in (('robin', 0), ('parakeet', 1), ('kingfisher', 2)):
            folder = tmp_path / 'birds' / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                image = random.integers(0, 80, (48, 64, 3), dtype=np.uint8)
                image[..., colour] += 150
                Image.fromarray(image).save(folder / f'{index}.jpg')
    page = (CHECKOUT / 'docs' / 'tutorials' / 'own-photographs.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    (config,) = (block for block in blocks if 'datasets/folder.py' in block)
    assert len(config.strip().splitlines()) <= 10
    assert "'gleam_mm::_base_/backbones/vit-b.py'" in config
    config = config.replace("'gleam_mm::_base_/backbones/vit-b.py'", "'tiny.py'")
    (tmp_path / 'birds.py').write_text(config)
    (tmp_path / 'tiny.py').write_text(BACKBONE)
    return tmp_path


SMALL = [
    '--cfg-options',
    'train_cfg.max_epochs=12',
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
]


def test_a_folder_of_images(call, birds):
    done = call('train.py', 'birds.py', *SMALL)
    assert done.code == 0, done.err
    assert ', and 99 of the head' in done.row('trainable')  # (32 + 1) * 3
    assert float(done.row('validation').split()[0]) > 60  # guessing gives 33
    _, metadata = read_adapter(birds / 'work_dirs' / 'birds' / 'adapter.safetensors')
    assert metadata['classes'] == ['kingfisher', 'parakeet', 'robin']


def test_pictures_that_are_told_by_their_path(call, birds):
    epoch = ['train_cfg.max_epochs=1', 'param_scheduler=None']
    words = ['birds.py', '--data', 'birds/val', *SMALL, *epoch]
    done = call('train.py', *words)
    assert done.code == 0, done.err
    cfg = recipes.load(birds / 'work_dirs' / 'birds' / 'birds.py')
    datasets = [cfg[f'{split}_dataloader'].dataset for split in ('train', 'val', 'test')]
    assert [dataset.data_root for dataset in datasets] == 3 * ['birds/val']
    assert datasets[0].hold_out == 0.2 and datasets[1].take_held_out
    assert datasets[0].pipeline[1].type == 'RandomResizedCrop'
    done = call('train.py', 'birds.py', '--data', 'nowhere')
    assert (done.code, 'nowhere: no such folder' in done.err) == (2, True)
    done = call('train.py', 'vit-b_lora_vtab-dtd', '--data', 'birds/val')
    assert (done.code, 'no val_dataloader for data' in done.err) == (2, True)


@pytest.mark.slow
def test_classes_that_validation_lacks(call, birds):
    (birds / 'birds' / 'val' / 'parakeet').rename(birds / 'parakeet')
    done = call('train.py', 'birds.py', *SMALL)
    assert done.code == 0, done.err
    assert ', and 99 of the head' in done.row('trainable')
    assert float(done.row('validation').split()[0]) > 60  # robins are still the third class
    adapter = birds / 'work_dirs' / 'birds' / 'adapter.safetensors'
    shutil.rmtree(birds / 'birds' / 'train')  # whose classes the adapter knows
    tested = call('test.py', 'birds.py', adapter, *SMALL)
    assert tested.code == 0, tested.err
    assert tested.row('accuracy/top1') == f'{float(done.row("accuracy").split()[0]):.4f}'
    (birds / 'birds' / 'val' / 'robin').rename(birds / 'birds' / 'val' / 'aardvark')
    tested = call('test.py', 'birds.py', adapter, *SMALL)
    assert tested.code == 2 and 'none of the 3 `classes`: aardvark' in tested.err


def test_mistakes_take_one_line_and_exit_with_2(call, config, tmp_path):
    for arguments, told in (
        (['vit-b_gleam-l_vtab-cifr'], ["'vtab-cifr'", 'vtab-cifar']),
        (
            ['vit-b_gleam-l_vtab-cifar'],
            ['checkpoints/vit-b_in21k.safetensors', 'init_cfg.checkpoint'],
        ),
        (['vit-b_gleam-l_folder'], ['data/folder/train', 'data_root']),
        ([config, '--resume'], ['no checkpoint in work_dirs/tiny']),
        ([config, '--resume', 'lost.pth'], ['lost.pth']),
        (
            [config, '--cfg-options', 'train_cfg.max_epochs=1'],
            ['train_cfg.max_epochs=1', 'warm-up'],
        ),
        ([config, '--cfg-options', 'load_from=lost.pth'], ['lost.pth']),
        ([config, '--cfg-options', 'model.head.num_classes=7'], ['num_classes', '7', '10']),
        ([config, '--cfg-options', 'train_dataloader.dataset.task=digit'], ['digit']),
        ([config, '--cfg-options', 'model.petl.type=Gleem'], ["type='Gleem'", "'GLEAM'"]),
    ):
        done = call('train.py', *arguments)
        assert done.code == 2, arguments
        assert done.err.splitlines()[-1].startswith('train.py: error: '), arguments
        for part in told:
            assert part in done.err, arguments
        assert 'Traceback' not in done.err
    assert not list(tmp_path.glob('work_dirs/*/*.pth'))


def test_mistakes_of_testing(call, config, trained, tmp_path):
    adapter = trained[0] / 'work_dirs' / 'tiny' / 'adapter.safetensors'
    other_classes = ['--cfg-options', 'model.head.num_classes=7']
    other_rank = ['--cfg-options', 'model.petl.rank=5']
    truncated = tmp_path / 'truncated.safetensors'
    truncated.write_bytes(adapter.read_bytes()[:-100])
    for arguments, told in (
        ([config, truncated], 'truncated.safetensors'),
        ([config, adapter, *other_classes], 'number of classes'),
        ([config, adapter, *other_rank], 'petl.'),
        ([config, adapter, '--out', 'predictions.txt'], '.pkl'),
        ([config, adapter, '--out-item', 'pred'], '--out FILE'),
    ):
        done = call('test.py', *arguments)
        assert done.code == 2, arguments
        assert told in done.err, (arguments, done.err)
        assert 'Traceback' not in done.err
    done = call('test.py', config, 'lost.pth', '--work-dir', tmp_path / 'none')
    assert (done.code, done.err) == (
        2,
        'test.py: error: lost.pth: no such file; give the path of a checkpoint file\n',
    )
    assert not (tmp_path / 'none').exists()


def test_a_second_training_and_the_best_one(trained, call, config, tmp_path, monkeypatch):
    folder, _ = trained
    monkeypatch.chdir(folder)
    before = {
        path.name: path.read_bytes() for path in (folder / 'work_dirs' / 'tiny').glob('*.*t*')
    }
    done = call('train.py', config, '--seed', 4, '--best')
    assert done.code == 0, done.err
    assert 'work_dirs/tiny has a training already: this one goes to work_dirs/tiny-2' in done.out
    assert all(
        (folder / 'work_dirs' / 'tiny' / name).read_bytes() == before[name] for name in before
    )
    beside = folder / 'work_dirs' / 'tiny-2'
    assert done.row('accuracy').endswith('% on test, with the best weights by validation')
    assert done.row('adapter').startswith('work_dirs/tiny-2/adapter.safetensors')
    (best,) = beside.glob('best_*.pth')
    tensors, metadata = read_adapter(beside / 'adapter.safetensors')
    kept = torch.load(best, weights_only=True)
    assert all(torch.equal(tensors[name], kept['state_dict'][name]) for name in tensors)
    assert best.stem.endswith(f'_epoch_{metadata["epoch"]}')
    validated = scalars(beside, 'accuracy/top1')
    assert metadata['metrics']['val'] == {'accuracy/top1': pytest.approx(max(validated))}
    assert validated.index(max(validated)) == metadata['epoch'] - 1
    tested = call('test.py', config, best, '--work-dir', tmp_path / 'test')
    accuracy = float(done.row('accuracy').split()[0])
    assert float(tested.row('accuracy/top1')) == pytest.approx(accuracy, abs=0.005)

    again = call('train.py', config, '--work-dir', beside)
    assert again.code == 2 and 'has a training already' in again.err
    resumed = call('train.py', config, '--seed', 3, '--work-dir', 'work_dirs/tiny', '--resume')
    assert resumed.code == 0, resumed.err
    none = call('train.py', config, '--best', '--no-validate', '--work-dir', tmp_path / 'none')
    assert none.code == 2 and '--best: the training keeps no best checkpoint' in none.err


def test_augmented_tests_and_pictures(trained, call, config, tmp_path):
    adapter = trained[0] / 'work_dirs' / 'tiny' / 'adapter.safetensors'
    flags = [config, adapter, '--work-dir', tmp_path / 'work', '--cfg-options']
    flags += ['test_dataloader.batch_size=20']  # the last batch is smaller
    plain = call('test.py', *flags, '--out', tmp_path / 'plain.pkl')
    pictures = tmp_path / 'pictures'
    done = call(
        *('test.py', *flags, '--tta', '--out', tmp_path / 'tta.pkl'),
        *('--show-dir', pictures, '--interval', 5),
    )
    assert done.code == 0, done.err
    scores = [
        torch.stack([sample['pred_score'] for sample in load(tmp_path / f'{name}.pkl')])
        for name in ('plain', 'tta')
    ]
    model = load_model(str(config), adapter)
    images = next(iter(DataLoader(images_of_test(config), batch_size=48)))
    with torch.no_grad():
        both = [model.head.predict(model.extract_feat(x)) for x in (images, images.flip(-1))]
    expected = [torch.stack([s.pred_score for s in samples]) for samples in both]
    torch.testing.assert_close(scores[0], expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(scores[1], sum(expected) / 2, rtol=0, atol=1e-5)
    assert float(plain.row('accuracy/top1')) >= 0
    names = sorted((path.name for path in pictures.iterdir()), key=lambda n: int(n.split('_')[0]))
    assert names == [f'{number}_0.png' for number in range(0, 48, 5)]
    for flag, told in (
        (['--show'], 'there is no display here'),
        (['--interval', '0'], '--interval 0: choose at least 1'),
        (['--wait-time', 'nan'], '--wait-time nan: choose a number of seconds'),
    ):
        wrong = call('test.py', *flags[:2], *flag)
        assert wrong.code == 2 and told in wrong.err


def test_pictures_in_windows(trained, call, config, tmp_path, monkeypatch):
    """Every twentieth is shown for half a second, in a window that a backend without any fakes."""
    matplotlib.use('Agg')
    monkeypatch.setenv('DISPLAY', ':0')
    shown = []
    monkeypatch.setattr(
        'mmengine.visualization.visualizer.wait_continue',
        lambda figure, timeout, continue_key: shown.append(
            (timeout, figure.axes[0].images[0].get_array().ndim)
        ),
    )
    adapter = trained[0] / 'work_dirs' / 'tiny' / 'adapter.safetensors'
    flags = ('--work-dir', tmp_path / 'work', '--show', '--interval', 20, '--wait-time', 0.5)
    done = call('test.py', config, adapter, *flags)
    assert done.code == 0, done.err
    assert shown == [(0.5, 3)] * 3


def images_of_test(config):
    """The images of the config's test split, as the model reads them."""
    cfg = recipes.load(config)
    with scope_of(cfg):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    return [sample['inputs'] / 255 for sample in dataset]


def test_test_data_are_looked_at_before_a_training(call, birds):
    shutil.copytree(birds / 'birds' / 'val', birds / 'birds' / 'test')
    (birds / 'birds' / 'test' / 'robin').rename(birds / 'birds' / 'test' / 'crow')
    for folder, told in (('test', 'none of the 3 `classes`: crow'), ('lost', 'birds/lost')):
        done = call('train.py', 'birds.py', *SMALL, f'test_dataloader.dataset.data_prefix={folder}')
        assert done.code == 2 and 'Epoch(train)' not in done.out
        assert told in done.err and done.err.count('\n') == 1
    assert not list(birds.rglob('*.pth'))
