"""Writes a trained model for other runtimes, backbone and all: ONNX, TorchScript, torch.export.

OUT is an .onnx file, .pt for TorchScript or .pt2 for torch.export. The batch is free. What is
written was compared with PyTorch at three batch sizes; where it differs, nothing is written.
"""

import argparse
from pathlib import Path

from gleam_mm_cli.flags import Parser

ENDINGS = ('.onnx', '.pt', '.pt2')


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('adapter', help='an adapter.safetensors')
    parser.add_argument('out', type=Path, help='the .onnx, .pt or .pt2 file to write')
    parser.add_argument(
        '--weights',
        help='the weights of the backbone; default: GLEAM_WEIGHTS, then where the adapter says',
    )
    parser.add_argument('--config', help='the config of the training, for what the adapter lacks')
    args = parser.parse_args()
    if args.out.suffix not in ENDINGS:
        parser.error(f'{args.out}: the ending is one of {", ".join(ENDINGS)}')
    return args


def main(args: argparse.Namespace) -> None:
    """Exports, and tells what it was compared at."""
    from gleam_mm import errors
    from gleam_mm.inference.export import export
    from gleam_mm.output import tables

    with errors.setup():
        done = export(args.adapter, args.out, args.weights, args.config)
    size = tables.size(done.path.stat().st_size)
    print(f'{done.path} ({size}), input {tuple(done.inputs)}, RGB from 0 to 255')
    for batch, difference in done.differences.items():
        print(f'batch {batch}: differs from PyTorch by at most {difference:.1e}')
