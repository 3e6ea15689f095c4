"""Makes a trained adapter file smaller: its matrices in 8, 4, 2 or 1 bits, or all of it in fp16.

OUT loads wherever ADAPTER does. With --config, both are measured on its validation split, so that
the accuracy that it costs is known before anything is deleted. A method that is trained with few
bits (`bits=1`) loses less than one that is rounded afterwards.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('adapter', help='an adapter.safetensors')
    parser.add_argument('out', help='the .safetensors file to write')
    parser.add_argument(
        '--bits',
        choices=['8', '4', '2', '1', 'fp16'],
        default='8',
        help='bits a number of a matrix, or half precision; default: 8',
    )
    parser.add_argument('--config', help='the config or recipe that it was trained with')
    parser.add_cfg_options('val_dataloader.batch_size=16')
    args = parser.parse_args()
    if not args.out.endswith('.safetensors'):
        parser.error(f'{args.out}: an adapter is a .safetensors file')
    if args.cfg_options and not args.config:
        parser.error('--cfg-options change a config: give --config too')
    return args


def main(args: argparse.Namespace) -> None:
    """Compresses, measures, and prints a table."""
    from gleam_mm import errors
    from gleam_mm.checkpoint import resolve_path
    from gleam_mm.checkpoint.compress import compress
    from gleam_mm.config import recipes
    from gleam_mm.engine.validate import cells, validate
    from gleam_mm.output import tables

    with errors.setup():
        cfg = recipes.load(args.config, args.cfg_options) if args.config else None
        compress(args.adapter, args.out, args.bits)
    files = [args.adapter, args.out]
    sizes = [tables.size(resolve_path(file).stat().st_size) for file in files]
    head, rows = ['file', 'size'], [[f, s] for f, s in zip(files, sizes, strict=True)]
    if cfg is not None:
        measured = validate(cfg, files)
        head += measured[0]
        for row, metrics in zip(rows, measured, strict=True):
            row += cells(metrics)
    print(tables.text(head, rows, left=['file']))
