"""How many kernels a training step launches, which is what its time hangs on where a GPU waits.

Forward and backward pass of every contender, without the optimizer's step, in float32 and in
bfloat16 autocast. A kernel is a call of PyTorch's that is no view. Numbers and not times, so they
are the same on any machine; depth and wiring decide them, and neither widths nor images do:

    python benchmarks/launches.py
"""

import argparse
import logging
from collections.abc import Sequence
from unittest import mock

import torch
from contenders import BACKBONES, CONTENDERS, MMPRETRAIN, Backbone
from counting import Calls
from measuring import DTYPES
from mmengine.logging import MMLogger

from gleam_mm.output.escape import markdown
from gleam_mm.output.tables import pipes
from gleam_mm.petl import lowrank

SHOWN = {'float32': 'float32', 'bf16': 'bfloat16'}
IMAGE_SIZES = {'vit-mini': 32, 'swin-mini': 32}
"""Of those backbones that do not take 224 pixels."""


def launches(name: str, backbone: Backbone, image_size: int, dtype: str) -> int:
    """Counts a training step of a contender.

    Args:
        name: A key of :data:`~contenders.CONTENDERS`.
        backbone: What it adapts.
        image_size: Of its images.
        dtype: A key of :data:`~measuring.DTYPES`.
    """
    model = CONTENDERS[name].build(backbone, image_size).train()
    images = torch.randn(2, 3, image_size, image_size)
    lower = DTYPES[dtype]
    for _ in range(2):  # what happens once is not counted
        calls = Calls()
        with calls, mock.patch.object(lowrank, 'ACCUMULATING', ()):  # as on a GPU
            with torch.autocast('cpu', lower or torch.bfloat16, enabled=lower is not None):
                outputs = model(images)
            outputs.float().sum().backward()
        model.zero_grad()
    return calls.number


def table(backbone: Backbone, image_size: int, names: Sequence[str]) -> str:
    """The contenders, and by how much each exceeds the limit of its library."""
    body = []
    for name in names:
        contender = CONTENDERS[name]
        limit = next(n for n, c in CONTENDERS.items() if c.limit and c.origin == contender.origin)
        cells = [markdown(name), contender.origin]
        for dtype in SHOWN:
            own, least = (launches(n, backbone, image_size, dtype) for n in (name, limit))
            cells += [f'{own:,}', f'{own / least:.2f}']
        body.append(cells)
    head = ['contender', 'library']
    for dtype in SHOWN.values():
        head += [dtype, "by the limit's"]
    return pipes(head, body, left=('contender', 'library'))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table of a backbone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--backbone', choices=BACKBONES, default='vit-b')
    parser.add_argument('--only', nargs='+', choices=CONTENDERS, help='default: all there are')
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    backbone = BACKBONES[args.backbone]
    names = args.only or [
        name
        for name, contender in CONTENDERS.items()
        if not contender.of_a_card and (backbone.timm or contender.origin == MMPRETRAIN)
    ]
    print(table(backbone, IMAGE_SIZES.get(args.backbone, 224), names))


if __name__ == '__main__':
    main()
