"""How many kernels a training step launches, which is what its time hangs on where a GPU waits.

Forward and backward pass of every contender, without the optimizer's step, in float32 and in
bfloat16 autocast. A kernel is a call of PyTorch's that is no view. Depth and wiring decide how many
there are, and neither widths nor images do, so that a narrow ViT of twelve blocks has those of
ViT-B and ViT-S. They are numbers and not times, the same on any machine:

    python benchmarks/launches.py

launches.csv goes to --out.
"""

import argparse
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import tabular
import torch
from arithmetic import DRAWN
from contenders import CONTENDERS, Backbone, vit
from counting import Calls
from measuring import DTYPES
from mmengine.logging import MMLogger
from step import FOLDER, note

from gleam_mm.fileio import write_bytes
from gleam_mm.models import precision
from gleam_mm.output import escape, tables
from gleam_mm.petl import lowrank

TYPES = 'float32', 'bf16'
TWELVE = Backbone(
    'ViT of twelve blocks',
    vit(96, 12, 12, 384),
    96,
    ('vit_tiny_patch16_224', dict(embed_dim=96, depth=12, num_heads=12)),
)
IMAGE_SIZE = 32


@dataclass(frozen=True)
class Count:
    """What a contender's step launches.

    Attributes:
        contender: A key of :data:`~contenders.CONTENDERS`.
        dtype: A key of :data:`~measuring.DTYPES`.
        kernels: How many there are.
    """

    contender: str
    dtype: str
    kernels: int


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Within it a CPU does what a GPU does where the two are treated differently."""
    with (
        mock.patch.object(lowrank, 'ACCUMULATING', ()),
        mock.patch.object(precision, 'MULTIPLIES_BFLOAT16', True),
        mock.patch.object(precision, 'SinglePrecisionAttention', contextlib.nullcontext),
    ):
        yield


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
        with calls, as_on_a_gpu():
            with torch.autocast('cpu', lower or torch.bfloat16, enabled=lower is not None):
                outputs = model(images)
            outputs.float().sum().backward()
        model.zero_grad()
    return calls.number


def counts(names: Iterable[str]) -> list[Count]:
    """Counts contenders on twelve blocks."""
    return [
        Count(name, dtype, launches(name, TWELVE, IMAGE_SIZE, dtype))
        for name in names
        for dtype in TYPES
    ]


def read(path: Path) -> list[Count]:
    """The counts of a CSV file."""
    return [count for (count,) in tabular.read(path, Count)]


def markdown(found: Sequence[Count]) -> str:
    """The contenders, and by how much each exceeds the limit of its library."""
    kernels = {(count.contender, count.dtype): count.kernels for count in found}
    body = []
    for name in dict.fromkeys(count.contender for count in found):
        library = CONTENDERS[name].origin
        limit = next(n for n, c in CONTENDERS.items() if c.limit and c.origin == library)
        cells = [escape.markdown(name), library]
        for dtype in TYPES:
            own = kernels[name, dtype]
            cells += [f'{own:,}', f'{own / kernels[limit, dtype]:.2f}']
        body.append(cells)
    head = ['contender', 'library']
    for dtype in TYPES:
        head += [dtype, "by the limit's"]
    return f'{tables.pipes(head, body, left=head[:2])}\n'


def main(argv: Sequence[str] | None = None) -> None:
    """Counts and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=FOLDER, help='folder of the table')
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    # On a CPU GLEAM has no kernel of its own, nor do others need their variants for a card.
    found = counts(n for n, c in CONTENDERS.items() if not c.of_a_card and n not in DRAWN)
    tabular.write(args.out / 'launches.csv', ((one,) for one in found), Count)
    write_bytes(args.out / 'launches.md', markdown(found).encode())
    note(args.out, 'launches')
    print(markdown(found))


if __name__ == '__main__':
    main()
