"""Prints how many parameters recipes train, and how large their adapter files are.

Trainable is what the method trains, of that shared by several sites and local to one. The head
comes extra, as in papers; it is '?' where only the data can tell the number of classes. Needs
neither weights nor data. --table1 counts the methods of the paper's Table 1 beside what it prints.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('configs', nargs='*', metavar='config', help='config files or recipes')
    parser.add_argument(
        '--table1', action='store_true', help="the parameter column of the paper's Table 1"
    )
    parser.add_cfg_options('model.petl.rank=20, of all configs')
    args = parser.parse_args()
    if args.table1 == bool(args.configs) or (args.table1 and args.cfg_options):
        parser.error('give configs or recipes, or else --table1 alone')
    return args


def main(args: argparse.Namespace) -> None:
    """Prints the table."""
    from gleam_mm import errors
    from gleam_mm.config import recipes
    from gleam_mm.models import params
    from gleam_mm.report import parameters

    rows = []
    with errors.setup():
        if args.table1:
            print(parameters.paper_table())
            return
        for config in args.configs:
            cfg = recipes.load(config, args.cfg_options)
            rows.append((recipes.name_of(cfg), params.count_config(cfg)))
    print(parameters.recipes_table(rows))
