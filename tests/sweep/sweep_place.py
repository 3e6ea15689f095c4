"""A folder to run sweeps in: VTAB-1K in miniature and a backbone of two blocks, in one second."""

from pathlib import Path

import torch
from vtab_tree import make_vtab_tree

from gleam_mm.registry import MODELS

TASKS = {'vtab-eurosat': 'eurosat', 'vtab-dmlab': 'dmlab', 'vtab-kitti': 'kitti'}
TINY = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
    img_size=32,
    patch_size=8,
)
# One epoch of two iterations, nothing forked.
OPTIONS = {
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.dataset.pipeline.1.scale': [32, 32],
    'test_dataloader.num_workers': 0,
    'test_dataloader.dataset.pipeline.1.scale': [32, 32],
    'train_cfg.max_epochs': 1,
    'param_scheduler': None,
}
BACKBONE = """
model = dict(
    type='PETLClassifier',
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='{weights}'), **{tiny}),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=32, num_classes=None),
)
"""


def make_place(folder: Path) -> Path:
    """Fills a folder with ``data/vtab-1k`` and the backbone ``tiny`` for recipes.

    Returns:
        The folder.
    """
    make_vtab_tree(folder / 'data' / 'vtab-1k', TASKS.values())
    bases = folder / 'configs' / '_base_' / 'backbones'
    bases.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(MODELS.build(TINY).state_dict(), folder / 'tiny.pth')
    (bases / 'tiny.py').write_text(BACKBONE.format(weights=folder / 'tiny.pth', tiny=TINY))
    return folder
