"""What DyT saves: operations and time of a backbone for several shares of tokens that pass.

Weights are random, and the gates are set so that the share passes, for the cost does not depend on
which tokens they are. Class tokens always pass.

    python benchmarks/skipping.py --arch b --batch 8
"""

import argparse
import time
from statistics import median

import torch
from counting import Arithmetic
from torch import nn

from gleam_mm.petl import DyT
from gleam_mm.registry import MODELS


class Share(nn.Module):
    """A gate that lets the first tokens pass, that share of them."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, 1)."""
        passing = torch.arange(x.shape[1], device=x.device) < self.share * x.shape[1]
        return passing[None, :, None].expand(len(x), -1, -1).to(x.dtype) - 0.5


@torch.no_grad()
def measure(backbone: nn.Module, images: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Multiplications and additions of one image, in billions, and milliseconds of one."""
    with Arithmetic() as arithmetic:
        backbone(images)
    times = []
    for _ in range(repeats):
        synchronize(images)
        start = time.perf_counter()
        backbone(images)
        synchronize(images)
        times.append(time.perf_counter() - start)
    return arithmetic.total / len(images) / 1e9, 1e3 * median(times) / len(images)


def synchronize(images: torch.Tensor) -> None:
    """Waits for a GPU."""
    if images.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', default='b', help='a ViT of MMPretrain (b)')
    parser.add_argument('--batch', type=int, default=8, help='images at once (8)')
    parser.add_argument('--repeats', type=int, default=5, help='passes to take the time of (5)')
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='VisionTransformer', arch=args.arch)).to(args.device)
    backbone.eval()
    images = torch.randn(args.batch, 3, 224, 224, device=args.device)
    print('| tokens that pass | GFLOPs an image | ms an image |')
    print('| --- | ---: | ---: |')
    flops, ms = measure(backbone, images, args.repeats)
    print(f'| the backbone alone | {flops:.1f} | {ms:.1f} |')
    method = DyT().to(args.device)
    method.attach(backbone)
    method.to(args.device)
    for share in (1.0, 0.7, 0.5, 0.3):
        for site in method.layout.sites(('block',)):
            method.local[site.key].router = Share(share)
        flops, ms = measure(backbone, images, args.repeats)
        print(f'| {share:.0%} | {flops:.1f} | {ms:.1f} |')


if __name__ == '__main__':
    main()
