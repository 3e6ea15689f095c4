"""Trains a config or a recipe, tests the final weights once and prints a summary."""

import argparse
import time

from gleam_mm_cli.flags import Parser, overrides

TRACKERS = ('tensorboard', 'wandb', 'mlflow')


def parse_args() -> argparse.Namespace:
    """Reads the flags: those of MMPretrain's tools/train.py, and --seed."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='a config file, or a recipe: vit-b_gleam-l_vtab-cifar')
    parser.add_data()
    parser.add_argument('--work-dir', help='where to write; default: work_dirs/<config>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='',
        metavar='PATH|auto',
        help='go on from this checkpoint or, without a path, from the latest one in the work '
        'directory; "auto" also starts from the beginning where there is none',
    )
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_seed()
    parser.add_argument(
        '--best',
        action='store_true',
        help='test the best checkpoint by validation and make it the adapter, not the last one',
    )
    parser.add_argument(
        '--track',
        nargs='+',
        choices=TRACKERS,
        default=(),
        metavar='TRACKER',
        help=f'show the curves there as well: {", ".join(TRACKERS)}, or several of them',
    )
    parser.add_argument('--no-validate', action='store_true', help='never validate')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size to the actual one',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='no pinned memory')
    parser.add_argument(
        '--no-persistent-workers', action='store_true', help='start data workers every epoch'
    )
    parser.add_cfg_options('model.petl.rank=8 train_cfg.max_epochs=50 key="[a,b]"')
    parser.add_launcher()
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Trains, tests, and prints the summary."""
    from gleam_mm import errors
    from gleam_mm.config import recipes
    from gleam_mm.datasets.sources import source_of
    from gleam_mm.engine import launch, summary, trackers

    with errors.setup():
        cfg = recipes.load(args.config, overrides(args))
        if args.data is not None:
            launch.use_source(cfg, source_of(args.data), args.cfg_options)
        if args.no_validate:
            cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        if args.auto_scale_lr:
            launch.scale_learning_rate(cfg)
        if args.amp:
            launch.use_amp(cfg)
        trackers.track(cfg, args.track)
        runner = launch.build_training(
            cfg,
            args.work_dir,
            args.resume,
            args.launcher,
            args.best,
            not args.no_pin_memory,
            not args.no_persistent_workers,
        )
    start = time.monotonic()
    runner.train()
    seconds = time.monotonic() - start
    if args.best:
        launch.load_best(runner)
    metrics = runner.test() if cfg.get('test_dataloader') is not None else None
    trackers.add_test(runner, metrics or {})
    summary.tell(summary.of_training(runner, metrics, seconds, args.best, args.data))
