"""``gleam_mm.finetune`` begins as ``gleam-mm train`` does."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import gleam_mm
from gleam_mm.datasets import CustomDataset
from gleam_mm.engine import PETLRunner
from gleam_mm.errors import UserError

NAME = 'vit-mini_linear_birds'


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """A folder of pictures to train on, beside which trainings do nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ('train/robin', 'train/wren'):
        folder = tmp_path / 'birds' / name
        folder.mkdir(parents=True)
        for index in range(5):
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(folder / f'{index}.png')
    monkeypatch.setattr(PETLRunner, 'train', lambda runner: None)
    monkeypatch.setattr(PETLRunner, 'test', lambda runner: {'accuracy/top1': 50.0})
    return tmp_path / 'birds'


def finetune(**options):
    return gleam_mm.finetune('birds', 'vit-mini', 'linear', epochs=2, **options)


@pytest.mark.slow
def test_a_second_training_does_not_replace_the_first(birds, monkeypatch):
    built = []
    init = CustomDataset.__init__

    def counted(dataset, *args, **kwargs):
        built.append(kwargs.get('take_held_out', False))
        init(dataset, *args, **kwargs)

    monkeypatch.setattr(CustomDataset, '__init__', counted)
    first = finetune()
    assert first.adapter.parent.resolve() == Path('work_dirs', NAME).resolve()
    assert built.count(False) == 2  # to ask for its classes, and to train on
    first.adapter.parent.mkdir(parents=True, exist_ok=True)
    first.adapter.write_bytes(b'')
    assert finetune().adapter.parent.name == f'{NAME}-2'
    with pytest.raises(UserError, match='has a training already, which another one would replace'):
        finetune(work_dir=first.adapter.parent)


def test_one_epoch_is_a_training_as_well(birds):
    made = gleam_mm.finetune('birds', 'vit-mini', 'linear', epochs=1)
    cfg = Config.fromfile(made.adapter.parent / 'vit-mini_linear_folder.py')
    assert cfg.train_cfg.max_epochs == 1
    assert cfg.param_scheduler is None


def test_test_data_are_looked_at_before_the_training(birds):
    (birds / 'test/hawk').mkdir(parents=True)
    (birds / 'train/wren/0.png').rename(birds / 'test/hawk/0.png')
    with pytest.raises(UserError, match='hawk'):
        finetune()
