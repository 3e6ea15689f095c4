"""Tests a checkpoint, or an adapter.safetensors, on the test split of its config."""

import argparse

from gleam_mm_cli.flags import Parser

METRICS_FILES = ('.json', '.yaml', '.yml', '.pkl', '.pickle')


def parse_args() -> argparse.Namespace:
    """Reads the flags: those of MMPretrain's tools/test.py."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='a config file, or a recipe: vit-b_gleam-l_vtab-cifar')
    parser.add_argument('checkpoint', help='a checkpoint (.pth) or an adapter (.safetensors)')
    parser.add_argument('--work-dir', help='where to write; default: work_dirs/<config>')
    parser.add_argument('--out', help='file for the results: .pkl, or .json for metrics')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what --out gets; default: predictions (pred)',
    )
    parser.add_argument('--amp', action='store_true', help='test with automatic mixed precision')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='average the scores of several images of each picture: tta_pipeline and tta_model of '
        'the config, or the picture and its mirror image',
    )
    parser.add_argument('--show-dir', metavar='FOLDER', help='write pictures with predictions here')
    parser.add_argument('--show', action='store_true', help='show them in a window')
    parser.add_argument(
        '--interval', type=int, default=1, metavar='N', help='draw every N-th picture; default: all'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, metavar='S', help='seconds of a window; default: 2'
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='no pinned memory')
    parser.add_cfg_options('test_dataloader.batch_size=16 key="[a,b]"')
    parser.add_launcher()
    args = parser.parse_args()
    if args.interval < 1:
        parser.error(f'--interval {args.interval}: choose at least 1')
    if not 0 <= args.wait_time < float('inf'):
        parser.error(f'--wait-time {args.wait_time}: choose a number of seconds')
    if args.out_item and not args.out:
        parser.error('--out-item says what --out gets: give --out FILE too')
    if args.out and args.out_item != 'metrics' and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out}: predictions go to a .pkl file; or use --out-item metrics')
    if args.out and not args.out.endswith(METRICS_FILES):
        parser.error(f'--out {args.out}: metrics go to a file with {", ".join(METRICS_FILES)}')
    return args


def main(args: argparse.Namespace) -> None:
    """Tests, and prints the metrics."""
    from gleam_mm import errors
    from gleam_mm.checkpoint import require_file, resolve_path
    from gleam_mm.config import recipes
    from gleam_mm.engine import launch, summary

    with errors.setup():
        cfg = recipes.load(args.config, args.cfg_options)
        launch.set_work_dir(cfg, args.work_dir)
        if cfg.get('test_dataloader') is None:
            raise ValueError(f"{args.config}: the config has no 'test_dataloader'")
        if '://' not in args.checkpoint:
            require_file(resolve_path(args.checkpoint))  # now, before anything is written
        cfg.load_from = args.checkpoint
        cfg.resume = False
        if args.amp:
            cfg.test_cfg.fp16 = True
        if args.tta:
            launch.use_test_time_augmentation(cfg)
        if args.show or args.show_dir is not None:
            launch.draw_predictions(cfg, args.show_dir, args.show, args.interval, args.wait_time)
        launch.set_dataloader_defaults(cfg, pin_memory=not args.no_pin_memory)
        runner = launch.build_runner(cfg, args.launcher, test_only=True)
        if args.out and args.out_item != 'metrics':
            summary.dump_predictions(runner, args.out)
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        summary.write_metrics(metrics, args.out)
    summary.tell(summary.of_metrics(metrics))
