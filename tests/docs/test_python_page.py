"""The code of docs/python.md and of its part of README.md, run on a tiny model."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import gleam_mm
from gleam_mm.models import timm_models

ROOT = Path(__file__).parents[2]
PAGES = {
    'python.md': (ROOT / 'docs' / 'python.md').read_text('utf-8'),
    'README.md': (ROOT / 'README.md').read_text('utf-8').partition('### From Python')[2],
}
TINY = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)


def blocks(page, language):
    """The blocks of code on a page, or in a section of it."""
    section = PAGES[page].partition('\n### ')[0]
    return re.findall(rf'```{language}\n(.*?)```', section, re.DOTALL)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """timm builds tiny models, whose pretrained weights are in a file."""
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


def test_every_block_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'pictures').mkdir()
    generator = np.random.default_rng(0)
    for name in ('cat.jpg', 'dog.jpg', 'pictures/a.png'):
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(name)
    torch.manual_seed(0)
    batches = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))] * 3
    names = {'loader': batches}
    for block in blocks('python.md', 'python'):
        exec(compile(block, 'docs/python.md', 'exec'), names)
    assert names['label'] in ('cat', 'dog')
    assert 0.5 <= names['score'] <= 1
    model, again = names['model'], names['again'].eval()
    assert torch.equal(model(batches[0][0]), again(batches[0][0]))
    assert names['pets']('pictures').keys() == {'pictures/a.png'}


def test_the_blocks_of_the_readme_run(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (40, 30), 'red').save('cat.jpg')
    names = {'timm': timm, 'gleam_mm': gleam_mm}
    (block,) = blocks('README.md', 'python')
    exec(compile(block, 'README.md', 'exec'), names)
    assert names['label'] in ('cat', 'dog')


def test_the_command_has_these_flags():
    (block,) = blocks('python.md', 'bash')
    program, tool, *arguments = shlex.split(block)
    assert program == 'python'
    done = subprocess.run([sys.executable, ROOT / tool, '--help'], capture_output=True, text=True)
    flags = [argument for argument in arguments if argument.startswith('--')]
    assert flags
    assert all(flag in done.stdout for flag in flags)
