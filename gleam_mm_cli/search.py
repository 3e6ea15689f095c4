"""Searches a trained supernet (GLoRA, NOAH) for its best subnet, by evolution on validation images.

Writes the subnet (subnet.json), a config that trains it (<config>_subnet.py), and the supernet's
weights for it (subnet.safetensors) into the work directory. The test split stays closed.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='the config or recipe that the supernet was trained with')
    parser.add_argument('checkpoint', help='a checkpoint or adapter file of the supernet')
    parser.add_argument('--work-dir', help='where to write; default: work_dirs/<config>_search')
    parser.add_argument(
        '--resume', action='store_true', help='go on with the search in the work directory, if any'
    )
    parser.add_argument('--generations', type=int, default=20, help='default: %(default)s')
    parser.add_argument(
        '--population', type=int, default=50, help='candidates a generation; default: %(default)s'
    )
    parser.add_argument(
        '--parents', type=int, default=10, help='how many have offspring; default: %(default)s'
    )
    parser.add_argument(
        '--mutation',
        type=float,
        default=0.2,
        metavar='P',
        help='probability that a mutant draws a choice anew; default: %(default)s',
    )
    parser.add_argument(
        '--max-params', type=int, metavar='N', help='the most parameters that a subnet may have'
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--amp', action='store_true', help='evaluate with automatic mixed precision'
    )
    parser.add_cfg_options('model.petl.rank=8')
    parser.add_launcher()
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Searches, and prints what was found."""
    from gleam_mm import errors
    from gleam_mm.config import recipes
    from gleam_mm.engine import launch, summary
    from gleam_mm.search.evolution import Settings
    from gleam_mm.search.subnet import SubnetSearch

    with errors.setup():
        cfg = recipes.load(args.config, args.cfg_options)
        launch.set_work_dir(cfg, args.work_dir or f'work_dirs/{recipes.name_of(cfg)}_search')
        if args.amp:
            cfg.val_cfg = dict(fp16=True)
        settings = Settings(
            generations=args.generations,
            population=args.population,
            parents=args.parents,
            mutation=args.mutation,
            max_params=args.max_params,
            seed=args.seed,
        )
        search = SubnetSearch(cfg, args.checkpoint, settings, args.resume, args.launcher)
    best = search.run()
    summary.tell(search.summary(best))
