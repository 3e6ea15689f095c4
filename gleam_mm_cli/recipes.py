"""Lists what recipes are made of, maps the methods, or writes a recipe as a short config to edit.

A recipe is <backbone>_<method>_<dataset>, such as vit-b_gleam-l_vtab-cifar. Every combination works
with every tool. Files in configs/_base_/ of the current directory join the list.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('name', nargs='?', help='the recipe to export')
    parser.add_argument('--export', metavar='FILE', help='write the recipe NAME to this file')
    parser.add_argument(
        '--methods',
        action='store_true',
        help='print the map of methods: equations, parameters, published accuracy, merging, cost',
    )
    parser.add_argument(
        '--sort',
        choices=('family', 'preset', 'parameters', 'accuracy', 'merges', 'cost'),
        default='family',
        help='what the map is sorted by',
    )
    args = parser.parse_args()
    if bool(args.name) != bool(args.export):
        parser.error('to export a recipe, give both: --export FILE NAME')
    if args.sort != 'family' and not args.methods:
        parser.error('--sort sorts the map of methods: give --methods as well')
    return args


def main(args: argparse.Namespace) -> None:
    """Lists or exports."""
    from gleam_mm import errors
    from gleam_mm.config import recipes
    from gleam_mm.models import methods

    with errors.setup():
        if args.export:
            print(f'wrote {recipes.export(args.name, args.export)}')
            return
        print(methods.listing(args.sort) if args.methods else recipes.listing())
