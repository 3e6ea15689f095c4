"""Checks that files of weights are what was written: adapters, checkpoints, pretrained weights.

Adapters have a SHA-256 over their tensors and metadata, .pth checkpoints a CRC-32 for each record.
Tells a line for each file; exits with 1 if one is damaged.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('files', nargs='+', metavar='FILE', help='a .safetensors or .pth file')
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Checks every file, whatever is wrong with others."""
    from gleam_mm.checkpoint import CheckpointError
    from gleam_mm.checkpoint.verify import verify
    from gleam_mm.output import escape

    damaged = 0
    for file in args.files:
        try:
            print(escape.terminal(f'{file}: {verify(file)}'))
        except (CheckpointError, OSError) as error:
            damaged = 1
            print(escape.terminal(str(error)))
    return damaged
