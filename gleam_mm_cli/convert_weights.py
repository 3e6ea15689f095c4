"""Converts pretrained ViT and Swin weights to MMPretrain's key names.

Reads timm's files (.safetensors, .bin, .pth), Google's ViT (.npz) and Microsoft's Swin (.pth), and
tells them apart by their keys. Every key is mapped, or left out and listed, or an error.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('source', help='the file to convert')
    parser.add_argument('destination', help='where to write: a .safetensors or .pth file')
    parser.add_argument(
        '--target',
        choices=['mmpretrain', 'timm', 'timm-pooled'],
        default='mmpretrain',
        help="MMPretrain's own classes (vit-b, swin-b), or timm's inside its TIMMBackbone "
        '(timm-vit-b, timm-swin-b), or in our PooledTIMMBackbone',
    )
    parser.add_argument('--force', action='store_true', help='replace the destination if it exists')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Converts."""
    from gleam_mm import errors
    from gleam_mm.checkpoint import convert

    with errors.setup():
        conversion = convert.convert_file(args.source, args.destination, args.target, args.force)
    print(convert.summary(args.source, args.destination, conversion))
