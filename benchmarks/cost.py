"""What methods cost at inference beside the backbone: GFLOPs of one image on ViT-B/16 at 224.

Nothing is computed but shapes. What depends on parameters alone is computed once for all images,
and not counted. A method that merges costs nothing once it is merged; DyT's cost depends on the
image, see ``benchmarks/skipping.py``.

    python benchmarks/cost.py gleam-l adapter vpt-deep
"""

import argparse

import torch
from counting import Arithmetic
from torch import nn

from gleam_mm.config import recipes
from gleam_mm.registry import MODELS


def backbone() -> nn.Module:
    """A ViT-B of shapes alone."""
    with torch.device('meta'):
        vit = MODELS.build(dict(type='VisionTransformer', arch='b'))
    vit.eval()
    return vit


@torch.no_grad()
def gflops(vit: nn.Module) -> float:
    """Billions of operations for one image, two for each multiplication with its addition."""
    images = torch.empty(1, 3, 224, 224, device='meta')
    vit(images)  # which computes what later passes do not have to
    with Arithmetic() as arithmetic:
        vit(images)
    return arithmetic.total / 1e9


def extra(preset: str, vit: nn.Module) -> float:
    """What a method, unmerged, adds to it."""
    alone = gflops(vit)
    with torch.device('meta'):
        method = MODELS.build(recipes.method_preset(preset)).eval()
        method.attach(vit)
    method.fold_constants()
    with_method = gflops(vit)
    method.detach()
    return with_method - alone


def main() -> None:
    """Prints one line a preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('presets', nargs='+')
    vit = backbone()
    print(f'the backbone alone: {gflops(vit):.1f}')
    for preset in parser.parse_args().presets:
        print(f'{preset}: {extra(preset, vit):+.3f}')


if __name__ == '__main__':
    main()
