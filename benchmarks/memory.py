"""How well `gleam-mm doctor` forecasts the memory of a training step.

ViT-S/16 and Swin-T at 224 on the CPU. Beside the forecast stands what two real steps take at their
peak by PyTorch's allocator, of whose every block its profiler tells.

    python benchmarks/memory.py
    python benchmarks/memory.py --batches 2
"""

import argparse
import sys
from collections.abc import Iterable
from copy import deepcopy

import allocator
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from torch import nn

from gleam_mm.config import recipes
from gleam_mm.doctor import forecast
from gleam_mm.models import build_model
from gleam_mm.output import tables
from gleam_mm.registry import scope_of

BACKBONES = {
    'vit-s': (dict(type='VisionTransformer', arch='deit-s', patch_size=16), None, 384),
    'swin-t': (
        dict(type='SwinTransformer', arch='tiny'),
        dict(type='GlobalAveragePooling'),
        768,
    ),
}
METHODS = ('gleam-l', 'lora', 'linear')
STEPS = 2


def config(backbone: str, method: str, batch_size: int, image_size: int) -> Config:
    """A training of the recipes' schedule, on a backbone of random weights."""
    cfg = recipes.load(f'vit-b_{method}_folder')
    described, neck, width = BACKBONES[backbone]
    cfg.model = dict(
        type='PETLClassifier',
        backbone=dict(described, img_size=image_size),
        neck=neck,
        head=dict(type='LinearClsHead', in_channels=width, num_classes=10),
        petl=recipes.method_preset(method),
        allow_random_backbone=True,
    )
    cfg.train_dataloader.batch_size = batch_size
    return cfg


def stored(model: nn.Module) -> int:
    """Bytes of the weights of a model."""
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def batch_of(cfg: Config) -> dict:
    """What a data loader hands over."""
    size = cfg.model.backbone.img_size
    image = torch.zeros(3, size, size, dtype=torch.uint8)
    sample = dict(inputs=image, data_samples=DataSample().set_gt_label(0))
    return default_collate([deepcopy(sample) for _ in range(cfg.train_dataloader.batch_size)])


def steps(cfg: Config, model: nn.Module, batch: dict) -> None:
    """Trains for a few steps."""
    with scope_of(cfg):
        wrapper = build_optim_wrapper(model, deepcopy(cfg.optim_wrapper))
        for _ in range(STEPS):
            model.train_step(batch, wrapper)
    model.zero_grad(set_to_none=True)


def of_allocator(cfg: Config, model: nn.Module) -> int:
    """The peak by the allocator, and what was there before."""
    batch = batch_of(cfg)
    return allocator.peak(lambda: steps(cfg, model, batch)) + stored(model)


def rows(contenders: Iterable[tuple[str, str, int, int]]) -> Iterable[list[str]]:
    """The table's rows, one at a time."""
    for names in contenders:
        cfg = config(*names)
        model = build_model(cfg).train()
        told, measured = forecast(cfg, model), of_allocator(cfg, model)
        mb = [f'{size / 1e6:.1f}' for size in (told, measured)]
        yield [*map(str, names[:3]), *mb, f'{told / measured:.4f}']
        print(' '.join(names[:2]), file=sys.stderr, flush=True)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--batches', type=int, nargs='+', default=[2, 8])
    args = parser.parse_args()
    torch.set_num_threads(1)
    contenders = [
        (backbone, method, batch, 224)
        for backbone in BACKBONES
        for batch in args.batches
        for method in METHODS
    ]
    head = ['backbone', 'method', 'batch', 'forecast', 'measured', 'ratio']
    print(f'MB; torch {torch.__version__}')
    print(tables.text(head, rows(contenders), left=['backbone', 'method']))


if __name__ == '__main__':
    main()
