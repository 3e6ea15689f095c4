"""Looks for what would stop or spoil a training, before it starts.

One line a finding: data, weights, normalisation, pooling, schedule, and the memory that a step
takes at its peak, which is forecast without taking it. Exits with 1 where one is an error.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='a config file, or a recipe: vit-b_gleam-l_vtab-cifar')
    parser.add_data()
    parser.add_argument(
        '--methods',
        nargs='+',
        default=[],
        metavar='METHOD',
        help='forecast the memory of these presets too; "all" is every one',
    )
    parser.add_argument('--device', help='where it will be trained; default: a GPU, or the CPU')
    parser.add_argument(
        '--pictures', type=int, default=64, metavar='N', help='read N of each split; default: 64'
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_cfg_options('train_dataloader.batch_size=64')
    args = parser.parse_args()
    if args.pictures < 1:
        parser.error(f'--pictures {args.pictures}: choose at least 1')
    return args


def main(args: argparse.Namespace) -> int:
    """Examines, prints what was found, and returns the exit status."""
    import json

    from mmengine.device import get_device

    from gleam_mm import errors
    from gleam_mm.config import recipes
    from gleam_mm.datasets.sources import source_of
    from gleam_mm.doctor import examine
    from gleam_mm.engine import launch
    from gleam_mm.output import escape

    with errors.setup():
        cfg = recipes.load(args.config, args.cfg_options)
        if args.data is not None:
            launch.use_source(cfg, source_of(args.data), args.cfg_options)
        found = examine(cfg, args.device or get_device(), args.methods, args.pictures)
    if args.json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            change = f'; change: {finding.change}' if finding.change else ''
            line = f'{finding.level:<7}  {finding.topic:<9}  {finding.text}{change}'
            print(escape.terminal(line))
    return int(any(finding.level == 'error' for finding in found))
