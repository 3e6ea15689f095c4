"""What contenders compute, by the limit's: the least by which their time can exceed it.

Counted on shapes alone, so that it is the same on any machine: the multiplications and additions of
a step, or of an evaluation, in which what depends on parameters alone has been computed before.
Where narrow products ran as fast as wide ones and nothing but products took time, `step.py` would
measure these ratios.

    python benchmarks/arithmetic.py

arithmetic.csv goes to --out.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tabular
import torch
from contenders import BACKBONES, CONTENDERS, MMPRETRAIN
from counting import Arithmetic
from mmengine.logging import MMLogger
from step import FOLDER, MODES, TRAINING, note
from torch import nn

from gleam_mm.output import escape, tables
from gleam_mm.petl import constants_folded

SHOWN = ('vit-b', 'vit-s', 'swin-b', 'swin-t')
IMAGE_SIZE = 224
BATCH = 2
DRAWN = ('glora', 'noah')
"""Who draws another subnet at every step, so that no two of them are of the same arithmetic."""


@dataclass(frozen=True)
class Count:
    """What a contender computes of an image.

    Attributes:
        backbone: A key of :data:`~contenders.BACKBONES`.
        contender: A key of :data:`~contenders.CONTENDERS`, of MMPretrain's library.
        mode: A step's forward and backward pass, or an evaluation.
        operations: Multiplications and additions.
    """

    backbone: str
    contender: str
    mode: str
    operations: int


def operations(model: nn.Module, images: torch.Tensor, mode: str) -> int:
    """Counts what a model, from images to logits, computes of one image."""
    training = mode == TRAINING
    model.train(training)
    with torch.set_grad_enabled(training), constants_folded(model):
        if not training:
            model(images)
        with Arithmetic() as arithmetic:
            logits = model(images)
            if training:
                logits.sum().backward()
    return arithmetic.total // len(images)


def counts() -> list[Count]:
    """Counts the contenders of MMPretrain's library."""
    images = torch.empty(BATCH, 3, IMAGE_SIZE, IMAGE_SIZE, device='meta')
    found = []
    for key in SHOWN:
        for name, contender in CONTENDERS.items():
            if contender.origin != MMPRETRAIN or contender.of_a_card or name in DRAWN:
                continue
            model = contender.build(BACKBONES[key], IMAGE_SIZE).to('meta')
            for mode in MODES if contender.evaluated else (TRAINING,):
                found.append(Count(key, name, mode, operations(model, images, mode)))
    return found


def read(path: Path) -> list[Count]:
    """The counts of a CSV file."""
    return [count for (count,) in tabular.read(path, Count)]


def markdown(found: Sequence[Count]) -> str:
    """A table of the contenders by the limit's."""
    by_setting = {(c.backbone, c.mode, c.contender): c.operations for c in found}
    settings = list(dict.fromkeys((c.backbone, c.mode) for c in found))
    body = []
    for name in dict.fromkeys(c.contender for c in found):
        cells = []
        for setting in settings:
            own = by_setting.get((*setting, name))
            cells.append('—' if own is None else f'{own / by_setting[*setting, "limit"]:.3f}')
        body.append((escape.markdown(name), *cells))
    head = ['contender', *(f'{BACKBONES[key].title}, {mode}' for key, mode in settings)]
    return f'{tables.pipes(head, body, left=head[:1])}\n'


def main(argv: Sequence[str] | None = None) -> None:
    """Counts and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=FOLDER, help='folder of the table')
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    found = counts()
    tabular.write(args.out / 'arithmetic.csv', ((one,) for one in found), Count)
    note(args.out, 'arithmetic')
    print(markdown(found))


if __name__ == '__main__':
    main()
