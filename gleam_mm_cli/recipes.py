"""Lists what recipes are made of, maps the methods, or writes a recipe as a short config to edit.

A recipe is <backbone>_<method>_<dataset>, such as vit-b_gleam-l_vtab-cifar: any three of the lists.
What does not go together, or not with a tool, is refused in a line that says why. Files in
configs/_base_/ of the current directory join the list.
"""

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from gleam_mm_cli.flags import Parser

if TYPE_CHECKING:
    from gleam_mm.config.methods import Entry

_PUBLISHED = (
    'VTAB-1K: as published, with a letter for the source (docs/methods.md). The codes behind most\n'
    'of it test after every epoch or every tenth, on the test split, and print the best.'
)

_ORDERS: dict[str, 'Callable[[Entry], object]'] = {
    'family': lambda entry: 0,  # as on the page
    'preset': lambda entry: entry.preset,
    'parameters': lambda entry: entry.parameters,
    'accuracy': lambda entry: -_leading_number(entry.accuracy),  # the best one first
    'merges': lambda entry: entry.merges != 'yes',
    'cost': lambda entry: entry.cost,
}


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
        choices=_ORDERS,
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

    with errors.setup():
        if args.export:
            print(f'wrote {recipes.export(args.name, args.export)}')
            return
        if args.methods:
            print(methods_table(args.sort))
            print(f'\n{_PUBLISHED}')
        else:
            print(recipes.listing())


def methods_table(order: str) -> str:
    """The map of methods for a terminal, sorted by one of its orders."""
    from gleam_mm.config import methods
    from gleam_mm.output import tables

    head = ['preset', 'parameters', 'VTAB-1K', 'merges', '+GFLOPs', 'family', 'equation']
    rows = [
        [
            entry.preset,
            f'{entry.parameters:,}',
            entry.accuracy,
            entry.merges,
            f'{entry.cost:g}',
            entry.family,
            entry.equation,
        ]
        for entry in sorted(methods.entries(), key=_ORDERS[order])
    ]
    return tables.text(head, rows, left=('preset', 'VTAB-1K', 'merges', 'family', 'equation'))


def _leading_number(accuracy: str) -> float:
    number = re.match(r'[\d.]+', accuracy)
    return float(number.group()) if number else -1.0
