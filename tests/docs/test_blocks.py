"""Every block of code on every page: run, or read where it cannot be; see pages.py."""

import contextlib
import functools
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from pages import PAGES, ROOT, Block, blocks, every_block
from PIL import Image

import gleam_mm
from gleam_mm import registry
from gleam_mm.models import timm_models
from gleam_mm.registry import DATASETS, MODELS
from gleam_mm.sweep import configure
from gleam_mm_cli.command import COMMANDS

TINY = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
PYTHON = [page for page in PAGES if any(b.language == 'python' for b in blocks(page))]


def test_blocks_are_found_and_marked():
    text = """
```python
x = 1
```

<!-- not run: it takes an hour -->
```bash
make
```
"""
    one, two = blocks('x.md', text)
    assert one == Block('x.md', 3, 'python', 'x = 1\n', None)
    assert two == Block('x.md', 8, 'bash', 'make\n', 'it takes an hour')
    assert one.is_config and not two.is_config


def test_every_language_is_known():
    strange = [b.place for page in PAGES for b in blocks(page) if b.language not in _LANGUAGES]
    assert not strange


_LANGUAGES = ('', 'python', 'bash', 'yaml')


# Python ---------------------------------------------------------------------------------------


@pytest.fixture
def _registries():
    """What a block registers is forgotten."""
    registries = [one for one in vars(registry).values() if isinstance(one, Registry)]
    for one in registries:
        one.import_from_location()
    before = [dict(one.module_dict) for one in registries]
    yield
    for one, components in zip(registries, before, strict=True):
        one.module_dict.clear()
        one.module_dict.update(components)


@pytest.fixture
def stage(tmp_path, monkeypatch, _registries):
    """A folder with pictures, and a timm whose models are tiny and have their weights in a file."""
    real = timm.create_model
    torch.manual_seed(0)
    weights = real('vit_base_patch16_224', num_classes=0, **TINY).state_dict()

    def create(name, pretrained_cfg_overlay=None, *, pretrained=False, **options):
        model = real(name, **{**options, **TINY})
        if pretrained:
            loaded = (pretrained_cfg_overlay or {}).get('state_dict', weights)
            model.load_state_dict(loaded, strict=False)
        return model

    monkeypatch.setattr(timm, 'create_model', create)
    monkeypatch.setattr(timm_models, 'cached_weights', lambda _: tmp_path / 'weights.pth')
    torch.save(weights, tmp_path / 'weights.pth')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'pictures').mkdir()
    generator = np.random.default_rng(0)
    for name in ('cat.jpg', 'dog.jpg', 'pictures/a.png'):
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(name)
    return tmp_path


def names_of(page):
    """What the blocks of a page have without saying so."""
    torch.manual_seed(0)
    names = {'gleam_mm': gleam_mm, 'timm': timm}
    if page == 'docs/python.md':
        for name in ('train/robin', 'train/wren', 'val/robin', 'val/wren'):
            for index in range(2):
                file = Path('birds', name, f'{index}.png')
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new('RGB', (40, 30), ('red', 'blue')[name.endswith('wren')]).save(file)
        names['loader'] = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))] * 3
    if page == 'docs/export.md':
        model = timm.create_model(
            'vit_base_patch16_224.augreg_in21k', pretrained=True, num_classes=2
        )
        gleam_mm.attach(model, 'gleam-t')
        gleam_mm.save(model, 'pets.safetensors', classes=['cat', 'dog'], options=_OPTIONS)
        gleam_mm.export('pets.safetensors', 'birds.onnx')
    return names


_OPTIONS = {key: TINY[key] for key in ('patch_size', 'embed_dim', 'depth', 'num_heads')}


def check_python(names):
    assert names['label'] in ('cat', 'dog')
    assert 0.5 <= names['score'] <= 1
    images = names['loader'][0][0]
    assert torch.equal(names['model'](images), names['again'].eval()(images))
    assert names['pets']('pictures').keys() == {'pictures/a.png'}
    told = gleam_mm.Predictor(names['birds'].adapter)('birds/val/wren/0.png')
    assert told.label in ('robin', 'wren')
    assert names['birds'].metrics.keys() >= {'accuracy/top1'}


def check_export(names):
    assert names['logits'].shape == (4, 2)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = names['model'].eval()(images)
        for other in ('theirs', 'ours'):
            torch.testing.assert_close(names[other].eval()(images), expected)


def check_method(names):
    images = torch.randn(2, 3, 32, 32)
    for sites in (['qkv', 'fc1'], ['v']):
        model = timm.create_model('vit_base_patch16_224', num_classes=2).eval()
        method = gleam_mm.attach(model, dict(type='OutputScale', sites=sites))
        with torch.no_grad():
            plain = model(images)
            for _, scale in method.trainable_parameters():
                scale.mul_(1.5)
            adapted = model(images)
            assert not torch.equal(adapted, plain)
            method.merge()
            torch.testing.assert_close(model(images), adapted)
    with pytest.raises(ValueError, match='OutputScale adapts Linears'):
        gleam_mm.attach(gleam_mm.detach(model), dict(type='OutputScale', sites=['norm']))


CHECKS = {
    'docs/python.md': check_python,
    'docs/export.md': check_export,
    'docs/tutorials/add-a-method.md': check_method,
    'docs/zh/add-a-method.md': check_method,
}


@pytest.mark.parametrize('page', PYTHON)
def test_python(page, stage):
    """The blocks of a page, one after the other in one namespace; its configs are read."""
    names = names_of(page)
    for block in blocks(page):
        if block.language != 'python':
            continue
        code = compile('\n' * (block.line - 1) + block.code, block.page, 'exec')
        if block.reason is None and block.is_config:
            read_config(block, stage)
        elif block.reason is None:
            exec(code, names)
    if page in CHECKS:
        CHECKS[page](names)


def read_config(block, folder):
    file = folder / 'block.py'
    file.write_text(block.code)
    if re.search(r'^methods = ', block.code, re.MULTILINE):
        settings = configure.read_file(str(file))
        assert settings['methods']
        return
    cfg = Config.fromfile(file)
    if 'model' in cfg:
        assert MODELS.get(cfg.model.petl.type)
        assert MODELS.get(cfg.model.get('head', {}).get('type', 'LinearClsHead'))
    for name in ('train_dataloader', 'val_dataloader'):
        if name in cfg:
            assert DATASETS.get(cfg[name].dataset.get('type', 'CustomDataset'))


# Shells ---------------------------------------------------------------------------------------


def commands(block):
    """The words of each command of a block, without comments and variables."""
    text = re.sub(r'\\\n', ' ', block.code)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars='&|;')
        lexer.whitespace_split = True
        lexer.commenters = '#'
        words = list(lexer)
        while words:
            end = next((i for i, word in enumerate(words) if set(word) <= set('&|;')), len(words))
            command, words = words[:end], words[end + 1 :]
            while command and re.fullmatch(r'\w+=.*', command[0]):
                command = command[1:]
            if command:
                yield command


SHELL = every_block('bash')


@pytest.mark.parametrize('block', SHELL, ids=lambda block: block.place)
def test_shell(block, monkeypatch, tmp_path):
    """Programs are there and know their flags; what is not marked is run in a slow test too."""
    monkeypatch.chdir(tmp_path)
    folder = ROOT
    for command in commands(block):
        if command[0] == 'cd':
            folder = (folder / command[1]).resolve()
        understood(command, folder, monkeypatch)


def understood(command, folder, monkeypatch):
    program, *words = command
    if program in ('cd', 'export', '.', 'pip', 'python3', 'pytest', 'curl'):
        return
    if program == 'make':
        targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
        assert set(words) <= set(targets), command
        return
    if program.endswith('.sh'):
        assert (folder / program).is_file(), command
        return
    if program == 'python':
        file = (folder / words[0]).resolve()
        assert file.is_file(), command
        if file.parent != ROOT / 'tools':
            return
        name, words = file.stem.replace('_', '-'), words[1:]
    else:
        assert program == 'gleam-mm', command
        if words == ['--help']:
            return
        name, *words = words
    assert name in COMMANDS, command
    module = importlib.import_module(f'gleam_mm_cli.{name.replace("-", "_")}')
    monkeypatch.setattr(sys, 'argv', [name, *words])
    with contextlib.suppress(SystemExit) if '--help' in words else contextlib.nullcontext():
        module.parse_args()


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """A folder in which two small trainings have been, and pictures."""
    folder = tmp_path_factory.mktemp('stage')
    (folder / 'tools').symlink_to(ROOT / 'tools')
    (folder / 'pictures').mkdir()
    for name in ('cat.jpg', 'pictures/dog.jpg'):
        Image.new('RGB', (40, 30), 'red').save(folder / name)
    for method in ('lora', 'gleam-l'):
        words = ['train', f'vit-mini_{method}_mini-digits', '--cfg-options', *_SMALL]
        subprocess.run([sys.executable, '-m', 'gleam_mm_cli', *words], cwd=folder, check=True)
    adapter = folder / 'work_dirs' / 'vit-mini_gleam-l_mini-digits' / 'adapter.safetensors'
    for name in ('pets.safetensors', 'work_dirs/birds/adapter.safetensors'):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(adapter, folder / name)
    return folder


@pytest.fixture(scope='session')
def stage_of(trained, tmp_path_factory):
    """Gives each page a copy of that folder, for its blocks go on from one another."""

    @functools.cache
    def stage(page):
        folder = tmp_path_factory.mktemp('page') / 'stage'
        return shutil.copytree(trained, folder, symlinks=True)

    return stage


_SMALL = [
    *('train_cfg.max_epochs=3', 'train_dataloader.dataset.indices=64'),
    *('val_dataloader.dataset.indices=16', 'test_dataloader.dataset.indices=16'),
]


def not_yet_run():
    """What is not marked, but of pages that have the same, as translations do, one's alone."""
    by_page = {}
    for block in SHELL:
        if block.reason is None:
            by_page.setdefault(block.page, []).append(block)
    once = {tuple(block.code for block in found): found for found in reversed(by_page.values())}
    return [block for found in by_page.values() if found in once.values() for block in found]


RUN = not_yet_run()


@pytest.mark.slow
@pytest.mark.parametrize('block', RUN, ids=lambda block: block.place)
def test_shell_runs(block, stage_of):
    """What is not marked ends with 0, where a training has been."""
    programs = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', block.code],
        cwd=stage_of(block.page),
        env={**os.environ, 'PATH': programs},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
