"""tools/train.py with a teacher, on pictures without labels."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from gleam_mm.checkpoint import read_adapter
from gleam_mm.config import recipes
from gleam_mm.inference.saving import save_classifier
from gleam_mm.minivtab.tasks import MINI_TASKS
from gleam_mm.models import load_model

UNLABELLED = """
_base_ = '{config}'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='{pictures}',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(32, 32)),
            dict(type='PackInputs'),
        ],
    )
)
model = dict(head=dict(num_classes=10))
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(max_epochs=4)
"""


@pytest.mark.slow
def test_an_adapter_learns_from_pictures_alone(call, config, tmp_path):
    names = list(MINI_TASKS['digits'].classes)
    cfg = recipes.load(config)
    cfg.model.petl = dict(type='LoRA', rank=2)
    teacher = load_model(cfg, options={'model.head.num_classes': 10})
    torch.nn.init.normal_(teacher.head.fc.weight)
    save_classifier(teacher, tmp_path / 'teacher.safetensors', cfg, names)
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for i in range(32):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f'{i}.png')
    mine = tmp_path / 'mine.py'
    mine.write_text(UNLABELLED.format(config=config, pictures=pictures))
    options = [f'model.teacher.checkpoint={tmp_path / "teacher.safetensors"}']
    work = tmp_path / 'work'
    done = call('train.py', mine, '--work-dir', work, '--cfg-options', *options)
    assert done.code == 0, done.err
    log = next(work.glob('*/*.log')).read_text()
    losses = [float(loss) for loss in re.findall(r' loss_distillation: (\S+)', log)]
    assert len(losses) == 8 and sum(losses[-2:]) < 0.8 * sum(losses[:2])
    adapter = work / 'adapter.safetensors'
    assert read_adapter(adapter)[1]['classes'] == names

    # A test does not look for the teacher.
    (tmp_path / 'teacher.safetensors').unlink()
    done = call('test.py', mine, adapter, '--work-dir', work, '--cfg-options', *options)
    assert done.code == 0, done.err
