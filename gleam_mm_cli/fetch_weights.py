"""Downloads the pretrained weights of backbones and converts them.

They go to the files that the configs load, checkpoints/... in the current directory. Needs a
network; without one, --list says which file to get by hand and how to convert it.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        'backbones',
        nargs='*',
        default=['vit-b'],
        metavar='BACKBONE',
        help='vit-b (ImageNet-21k), swin-b (ImageNet-22k), vit-s-dinov2 and others, see --list; '
        'default: vit-b',
    )
    parser.add_argument('--force', action='store_true', help='replace files that exist')
    parser.add_argument('--list', action='store_true', help='print where the files are, and stop')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Downloads and converts."""
    from gleam_mm import errors
    from gleam_mm.checkpoint import convert, pretrained

    with errors.setup():
        if args.list:
            print(pretrained.listing())
            return
        for backbone in args.backbones:
            path, conversion = pretrained.fetch(backbone, args.force)
            print(convert.summary(backbone, path, conversion))
