"""Ways to compute GLEAM's mixture where each image or window meets a kernel of its own.

What a mixture adds to a step is one convolution with the gated sum of the folded experts, a group
for each image (equations 8 and 9). Others give the same numbers; all of them take turns, forward
and backward pass of one site, on the shapes of a ViT and of a Swin's stages at 224,
where a site meets whole images (fc1, fc2) or windows (qkv, proj):

    python benchmarks/mixture.py --threads 1
    python benchmarks/mixture.py --device cuda --dtype bf16    # with GLEAM's own kernel
    python benchmarks/mixture.py --device cuda --dtype bf16 --cuda-graph

mixture.csv and mixture.md go to --out. The last way gives other numbers: one gate for all windows
of an image, to see what gates for each window cost.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tabular
import torch
from measuring import DTYPES, seconds
from step import FOLDER, note
from torch import Tensor
from torch.nn import functional as F

from gleam_mm.fileio import write_bytes
from gleam_mm.layouts import Grid
from gleam_mm.output import tables
from gleam_mm.petl.moe import ConvMoE

RANK, EXPERTS = 16, 4

Form = Callable[[ConvMoE, Tensor, int, int], Tensor]
"""Of a mixture, tokens (images or windows, tokens, r), the grid's side, and how many of them are an
image's: the mixed tokens."""


@dataclass(frozen=True)
class Shape:
    """What a site's mixture meets.

    Attributes:
        title: What tables call it.
        side: Tokens along a side of an image or a window.
        windows: How many of them an image has.
    """

    title: str
    side: int
    windows: int = 1


SHAPES = (
    Shape('ViT', 14),
    *(Shape(f'Swin, {side} x {side}', side) for side in (56, 28, 14, 7)),
    *(Shape(f'{number} windows', 7, number) for number in (64, 16, 4)),
)


def gated(moe: ConvMoE, z: Tensor) -> Tensor:
    """The kernel of each image or window, of shape (B, r, r, 3, 3)."""
    mixture = moe.mixture()
    weights = moe.route(z.mean(1), mixture.router)
    return (weights @ mixture.kernels.flatten(1)).unflatten(1, mixture.kernels.shape[1:])


def in_use(moe: ConvMoE, z: Tensor, side: int, windows: int, fused: bool = False) -> Tensor:
    """One convolution with a group for each, or GLEAM's own kernel."""
    moe.fused = fused
    return moe(z, Grid(0, side, side))


def channels_last(moe: ConvMoE, z: Tensor, side: int, windows: int) -> Tensor:
    """The same convolution, with images and kernels in this format."""
    (batch, tokens, channels), kernels = z.shape, gated(moe, z)
    image = z.transpose(1, 2).reshape(1, batch * channels, side, side)
    mixed = F.conv2d(
        image.contiguous(memory_format=torch.channels_last),
        kernels.flatten(0, 1).contiguous(memory_format=torch.channels_last),
        padding=1,
        groups=batch,
    )
    return mixed.reshape(batch, channels, tokens).transpose(1, 2)


def unfolded(moe: ConvMoE, z: Tensor, side: int, windows: int) -> Tensor:
    """Every token beside its eight neighbours, and one batched product with the kernels."""
    kernels = gated(moe, z)
    patches = F.unfold(z.transpose(1, 2).unflatten(2, (side, side)), 3, padding=1)
    return (kernels.flatten(2) @ patches).transpose(1, 2)


def shifted(moe: ConvMoE, z: Tensor, side: int, windows: int) -> Tensor:
    """The tokens moved by each of the nine taps, nine batched products that are summed."""
    kernels = gated(moe, z)
    padded = F.pad(z.unflatten(1, (side, side)), (0, 0, 1, 1, 1, 1))
    mixed = z.new_zeros(())
    for y in range(3):
        for x in range(3):
            moved = padded[:, y : y + side, x : x + side].flatten(1, 2)
            mixed = mixed + moved @ kernels[..., y, x].transpose(1, 2)
    return mixed


def gathered(moe: ConvMoE, z: Tensor, side: int, windows: int) -> Tensor:
    """The tokens moved by each of the nine taps, beside each other, and one batched product."""
    kernels = gated(moe, z)
    padded = F.pad(z.unflatten(1, (side, side)), (0, 0, 1, 1, 1, 1))
    moved = [padded[:, y : y + side, x : x + side] for y in range(3) for x in range(3)]
    return torch.cat(moved, -1).flatten(1, 2) @ kernels.permute(0, 3, 4, 2, 1).flatten(1, 3)


def summed_after(moe: ConvMoE, z: Tensor, side: int, windows: int) -> Tensor:
    """One convolution with all experts, which are summed for each image afterwards."""
    mixture = moe.mixture()
    kernels, weights = mixture.kernels, moe.route(z.mean(1), mixture.router)
    experts = F.conv2d(
        z.transpose(1, 2).unflatten(2, (side, side)), kernels.flatten(0, 1), padding=1
    )
    experts = experts.unflatten(1, (moe.num_experts, moe.channels)).flatten(3)
    return (weights[:, :, None, None] * experts).sum(1).transpose(1, 2)


def one_gate(moe: ConvMoE, z: Tensor, side: int, windows: int) -> Tensor:
    """A gate for an image's windows together: they are a batch, with a group for each image."""
    tokens, channels = z.shape[1:]
    images = z.unflatten(0, (-1, windows))
    kernels = gated(moe, images.flatten(1, 2))
    batch = images.permute(1, 0, 3, 2).reshape(windows, -1, side, side)
    mixed = F.conv2d(batch, kernels.flatten(0, 1), padding=1, groups=len(images))
    mixed = mixed.reshape(windows, -1, channels, tokens)
    return mixed.permute(1, 0, 3, 2).reshape(z.shape)


ON_CARD = "GLEAM's kernel"
OTHER = 'one gate for an image'
FORMS: dict[str, Form] = {
    'a group for each': in_use,
    ON_CARD: partial(in_use, fused=True),
    'the same, channels last': channels_last,
    'unfold, one product': unfolded,
    'nine shifts, nine products': shifted,
    'nine shifts, one product': gathered,
    'all experts, then the sum': summed_after,
    OTHER: one_gate,
}
"""The form of comparison first; on a CPU GLEAM has no kernel of its own."""


@dataclass(frozen=True)
class Row:
    """What a way costs on a shape.

    Attributes:
        device: ``cpu`` or ``cuda``.
        dtype: A key of :data:`~measuring.DTYPES`; what tokens and kernels are of.
        batch: How many images.
        shape: The title of the shape.
        form: A key of :data:`FORMS`.
        cuda_graph: Whether it was recorded and replayed.
        time: The median over rounds of its time by the first form's in the same round.
        microseconds: The median of its time on a card; elsewhere other programs take part in it.
    """

    device: str
    dtype: str
    batch: int
    shape: str
    form: str
    cuda_graph: bool
    time: float
    microseconds: float | None = None

    @property
    def setting(self) -> tuple[str, str, int, bool]:
        """What the rows of a table have in common."""
        return self.device, self.dtype, self.batch, self.cuda_graph


def turn_of(
    form: Form, shape: Shape, batch: int, device: str, dtype: str, cuda_graph: bool
) -> Callable[[], None]:
    """Forward and backward pass of one site's mixture in training, with the same numbers."""
    torch.manual_seed(0)
    kind = DTYPES[dtype] or torch.float32
    moe = ConvMoE(RANK, EXPERTS, top_k=EXPERTS).to(device, kind)
    z = torch.randn(batch * shape.windows, shape.side**2, RANK, device=device, dtype=kind)
    z.requires_grad_(True)
    gradient = torch.randn_like(z)

    def turn() -> None:
        mixed = form(moe, z, shape.side, shape.windows)
        torch.autograd.grad(mixed, (z, *moe.parameters()), gradient)

    return recorded(turn) if cuda_graph else turn


def recorded(turn: Callable[[], None]) -> Callable[[], None]:
    """A turn as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            turn()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        turn()
    return graph.replay


def measure(
    shapes: Sequence[Shape], batch: int, device: str, dtype: str, cuda_graph: bool, rounds: int
) -> list[Row]:
    """Measures all forms on shapes, in turn."""
    on_card = device == 'cuda'
    names = [name for name in FORMS if on_card or name != ON_CARD]
    found = []
    for shape in shapes:
        turns = {
            name: turn_of(FORMS[name], shape, batch, device, dtype, cuda_graph)
            for name in names
            if name != OTHER or shape.windows > 1
        }
        for turn in turns.values():  # what happens once is not counted
            turn()
        repeats = max(1, round(0.02 / seconds(turns[names[0]], on_card, 3)))
        counted = [
            {name: seconds(turn, on_card, repeats) for name, turn in turns.items()}
            for _ in range(rounds)
        ]
        for name in turns:
            ratio = statistics.median(taken[name] / taken[names[0]] for taken in counted)
            own = 1e6 * statistics.median(taken[name] for taken in counted)
            known = own if on_card else None
            found.append(Row(device, dtype, batch, shape.title, name, cuda_graph, ratio, known))
    return found


def read(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    return [row for (row,) in tabular.read(path, Row)]


def markdown(found: Sequence[Row]) -> str:
    """A table for each setting, with the shapes beside each other; microseconds in brackets."""
    parts = []
    for setting in dict.fromkeys(row.setting for row in found):
        rows = [row for row in found if row.setting == setting]
        shapes = list(dict.fromkeys(row.shape for row in rows))
        cells = {(row.form, row.shape): row for row in rows}
        body = [
            (form, *(_cell(cells.get((form, shape))) for shape in shapes))
            for form in dict.fromkeys(row.form for row in rows)
        ]
        head = ('', *shapes)
        parts.append(f'### {_told(*setting)}\n\n{tables.pipes(head, body, left=head[:1])}\n')
    return '\n'.join(parts)


def _told(device: str, dtype: str, batch: int, cuda_graph: bool) -> str:
    return f'{batch} images in {dtype} on {device}{", replayed" if cuda_graph else ""}'


def _cell(row: Row | None) -> str:
    if row is None:
        return tables.MISSING
    absolute = '' if row.microseconds is None else f' ({row.microseconds:,.0f})'
    return f'{row.time:.2f}{absolute}'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--dtype', choices=DTYPES, default='float32')
    parser.add_argument('--batch', type=int, help='images; 4, on a card 32')
    parser.add_argument('--cuda-graph', action='store_true', help='record turns and replay them')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', type=int, help='threads of PyTorch on a CPU')
    parser.add_argument('--out', type=Path, default=FOLDER, help='folder of the tables')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and takes the place of what was measured in the same way."""
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    batch = args.batch or (32 if args.device == 'cuda' else 4)
    setting = args.device, args.dtype, batch, args.cuda_graph
    found = [row for row in read(args.out / 'mixture.csv') if row.setting != setting]
    found += measure(SHAPES, batch, args.device, args.dtype, args.cuda_graph, args.rounds)
    tabular.write(args.out / 'mixture.csv', ((row,) for row in found), Row)
    write_bytes(args.out / 'mixture.md', markdown(found).encode())
    note(args.out, f'mixtures of {_told(*setting)}', args.device)
    print(markdown(found))


if __name__ == '__main__':
    main()
