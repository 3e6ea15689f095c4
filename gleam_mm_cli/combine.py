"""Makes one adapter of several, or the opposite of one, without training.

Each ADAPTER may be followed by its weight, `a.safetensors:0.7`. `mean` averages parameters, as of
the seeds of a task or of checkpoints of one run, and `metric` the same by their validation
accuracy. `product`, `ties` and `dare` add what low-rank updates do; `negate` turns an adapter
around. With --config, all files are measured on its validation split.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('out', help='the .safetensors file to write')
    parser.add_argument('adapters', nargs='+', metavar='ADAPTER[:WEIGHT]', type=_weighted)
    parser.add_argument(
        '--how',
        choices=['mean', 'product', 'ties', 'dare', 'metric', 'negate'],
        default='mean',
        help='default: mean',
    )
    parser.add_argument('--rank', type=int, help='cut low-rank updates to this rank')
    parser.add_argument(
        '--density', type=float, help='the share that ties (0.2) and dare (0.1) keep'
    )
    parser.add_argument('--seed', type=int, default=0, help='of what dare drops; default: 0')
    parser.add_argument('--metric', help='the validation metric that --how metric weighs by')
    parser.add_argument('--power', type=float, default=1.0, help='and its exponent; default: 1')
    parser.add_argument('--head', help='the adapter whose head and classes the result has')
    parser.add_argument('--config', help='the config or recipe that they were trained with')
    parser.add_cfg_options('val_dataloader.batch_size=16')
    args = parser.parse_args()
    if not args.out.endswith('.safetensors'):
        parser.error(f'{args.out}: an adapter is a .safetensors file')
    if args.cfg_options and not args.config:
        parser.error('--cfg-options change a config: give --config too')
    if len({weight is None for _, weight in args.adapters}) > 1:
        parser.error('give a weight to every adapter, or to none')
    return args


def _weighted(word: str) -> tuple[str, float | None]:
    file, colon, weight = word.rpartition(':')
    try:
        return (file, float(weight)) if colon else (word, None)
    except ValueError:
        return word, None


def main(args: argparse.Namespace) -> None:
    """Combines, measures, and prints a table."""
    from gleam_mm import errors
    from gleam_mm.combine import combine
    from gleam_mm.config import recipes
    from gleam_mm.engine.validate import cells, validate_each
    from gleam_mm.output import tables

    files = [file for file, _ in args.adapters]
    weights = [weight for _, weight in args.adapters]
    with errors.setup():
        cfg = recipes.load(args.config, args.cfg_options) if args.config else None
        made = combine(
            files,
            args.out,
            args.how,
            None if None in weights else weights,
            rank=args.rank,
            density=args.density,
            seed=args.seed,
            metric=args.metric,
            power=args.power,
            head=args.head,
            cfg=cfg,
        )
    rows = [[file, f'{weight:.4g}'] for file, weight in zip(files, made.weights, strict=True)]
    rows.append([args.out, args.how])
    head = ['file', 'weight']
    if cfg is not None:
        measured = validate_each(cfg, [*files, args.out])
        head += measured[0]
        for row, metrics in zip(rows, measured, strict=True):
            row += cells(metrics)
    print(tables.text(head, rows, left=['file']))
    for rank in made.ranks:
        print(f'rank {rank}' + ('' if made.energy is None else f', energy {made.energy:.4f}'))
