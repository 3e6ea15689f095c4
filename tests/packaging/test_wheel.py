"""The wheel in a virtual environment of its own, used in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mmengine.fileio import load
from PIL import Image

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm_cli.command import COMMANDS

ROOT = Path(__file__).parents[2]
SOURCES = ('gleam_mm', 'gleam_mm_cli', 'configs', 'tools', 'zoo')
FILES = ('pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml')

RECIPE = 'vit-mini_gleam-l_mini-digits'
SMALL = [
    *('train_cfg.max_epochs=3', 'train_dataloader.dataset.indices=64'),
    *('val_dataloader.dataset.indices=16', 'test_dataloader.dataset.indices=16'),
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    # A worker that lives on has to be one.
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
]


def test_every_tool_is_a_command():
    tools = {file.stem.replace('_', '-') for file in (ROOT / 'tools').glob('*.py')}
    assert tools == COMMANDS.keys()


def test_nothing_asks_for_a_build_of_torch():
    """A pin such as torch==2.13.0+cpu, or an index of CPU builds, would take the GPU away."""
    for file in (ROOT / 'requirements.txt', *(ROOT / 'requirements').glob('*.txt')):
        lines = [line.partition('#')[0].strip() for line in file.read_text().splitlines()]
        for line in filter(None, lines):
            other_file = line.startswith('-r ')
            assert other_file or not line.startswith('-'), f'{file.name}: {line}'
            assert '+' not in line, f'{file.name}: {line}'


def test_the_metafile_has_the_counts():
    index = load(ROOT / 'model-index.yml')
    for model in (m for file in index['Import'] for m in load(ROOT / file)['Models']):
        config = ROOT / model['Config']
        assert config.is_file()
        if config.parent.name != 'methods':  # a preset, which says no backbone
            counted = params.count_config(recipes.load(config)).trainable
            assert model['Metadata']['Parameters'] == counted


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources: setuptools keeps old files in ``build``."""
    folder = tmp_path_factory.mktemp('sources')
    for name in SOURCES:
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    out = tmp_path_factory.mktemp('dist')
    offline = ('--no-deps', '--no-build-isolation', '--no-index')
    command = [sys.executable, '-m', 'pip', 'wheel', *offline, '--wheel-dir', str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def gleam_mm(wheel, tmp_path_factory):
    """Runs the console script of the wheel, in a virtual environment that has only it.

    What it stands on is found where the tests have it, which saves a download of gigabytes.
    """
    venv = tmp_path_factory.mktemp('venv')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(venv)], check=True)
    scheme = sysconfig.get_preferred_scheme('prefix')
    packages = Path(sysconfig.get_path('purelib', scheme, {'base': str(venv)}))
    (packages / 'below.pth').write_text(sysconfig.get_path('purelib'))
    python = venv / 'bin' / 'python'
    install = ['pip', '--python', str(python), 'install', '--no-deps', '--no-index', str(wheel)]
    subprocess.run([sys.executable, '-m', *install], check=True, capture_output=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'GLEAM'))}
    environment['OMP_NUM_THREADS'] = '1'

    def run(*words, cwd, script=True):
        program = [venv / 'bin' / 'gleam-mm'] if script else [python, '-c']
        done = subprocess.run(
            [*program, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_what_is_in_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = ('.py', '.sh', '.yml', '.json', '.safetensors')
    for folder in ('configs', 'tools', 'zoo'):
        files = [f for f in (ROOT / folder).rglob('*') if f.suffix in kinds]
        assert files
        assert {f'gleam_mm/.mim/{file.relative_to(ROOT)}' for file in files} <= names
    assert {'gleam_mm/.mim/model-index.yml', 'gleam_mm/weights/vit-mini.safetensors'} <= names
    page = {'page.html', 'page.js', 'page.css'}  # of the server
    assert {f'gleam_mm/serve/page/{name}' for name in page} <= names
    assert not {name for name in names if name.startswith(('tests', 'tools', 'configs', 'zoo'))}


BASES = """
import gleam_mm
from pathlib import Path
from mmengine.config import Config

assert Path(gleam_mm.__file__).is_relative_to({venv!r}), gleam_mm.__file__
Path('mine.py').write_text('''
_base_ = [
    'gleam_mm::_base_/backbones/vit-mini.py',
    'gleam_mm::_base_/methods/lora.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
]
model = dict(petl=_base_.method)
''')
cfg = Config.fromfile('mine.py')
assert cfg.model.petl.type == 'LoRA'
assert cfg.optim_wrapper.optimizer.type == 'SGD'
"""


@pytest.mark.slow
def test_in_an_empty_folder(gleam_mm, tmp_path):
    gleam_mm(BASES.format(venv=str(tmp_path.parent.parent)), cwd=tmp_path, script=False)
    assert 'gleam-l' in gleam_mm('recipes', cwd=tmp_path).split()

    out = gleam_mm('train', RECIPE, '--cfg-options', *SMALL, cwd=tmp_path)
    adapter = f'work_dirs/{RECIPE}/adapter.safetensors'
    assert (tmp_path / adapter).is_file()
    _, told = re.findall(r'gleam-mm (test|train) (.+)', out)
    assert told == ('train', 'vit-mini_linear_mini-digits')

    dumped = f'work_dirs/{RECIPE}/{RECIPE}.py'
    accuracy = float(re.search(r'accuracy +([\d.]+) % on test', out).group(1))
    tested = gleam_mm('test', dumped, adapter, cwd=tmp_path)
    assert float(re.search(r'accuracy/top1 +([\d.]+)', tested).group(1)) == pytest.approx(accuracy)

    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(tmp_path / 'black.png')
    predicted = gleam_mm('predict', adapter, 'black.png', cwd=tmp_path)
    assert re.fullmatch(r'black.png: \w+ [01]\.\d{3}\n', predicted)

    shipped = 'vit-mini_gleam-l_mini-digits'
    assert shipped in gleam_mm('zoo', 'list', cwd=tmp_path)
    gleam_mm('zoo', 'get', shipped, '--out', 'got', cwd=tmp_path)
    gleam_mm('predict', f'got/{shipped}.safetensors', 'black.png', cwd=tmp_path)

    assert '38,016' in gleam_mm('params', RECIPE, cwd=tmp_path)


@pytest.mark.slow
def test_a_recipe_of_ones_own(gleam_mm, tmp_path):
    gleam_mm('recipes', '--export', 'mine.py', 'vit-mini_lora_mini-digits', cwd=tmp_path)
    assert 'gleam_mm::_base_/methods/lora.py' in (tmp_path / 'mine.py').read_text()
    gleam_mm('train', 'mine.py', '--work-dir', 'lora', '--cfg-options', *SMALL, cwd=tmp_path)
    gleam_mm('merge', 'lora/mine.py', 'lora/adapter.safetensors', 'merged.pth', cwd=tmp_path)
    assert (tmp_path / 'merged.pth').is_file()


@pytest.mark.slow
def test_a_sweep_and_its_report(gleam_mm, tmp_path):
    flags = ['--backbone', 'vit-mini', '--methods', 'lora', '--datasets', 'mini-digits']
    gleam_mm('sweep', 'run', *flags, '--name', 'small', '--cfg-options', *SMALL, cwd=tmp_path)
    gleam_mm('report', 'small', cwd=tmp_path)
    assert list((tmp_path / 'work_dirs' / 'sweeps' / 'small' / 'report').glob('*.html'))
