"""Pre-trains a backbone that ships with the package and writes its weights in half precision."""

import argparse
from pathlib import Path

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='such as configs/pretrain/vit-mini_procedural.py')
    parser.add_argument('--work-dir', help='where to train; default: work_dirs/<config>')
    parser.add_argument(
        '--out',
        help='the file to write; default: the one that ships with the package, which has the name '
        "that the config's begins with",
    )
    parser.add_argument(
        '--export',
        metavar='CHECKPOINT',
        help='train nothing, only write the backbone of this checkpoint',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Trains, or goes on with a training that was interrupted, and writes the file."""
    from mmengine.config import Config

    from gleam_mm import errors
    from gleam_mm.checkpoint import pretrained
    from gleam_mm.engine import launch, summary

    out = args.out or pretrained.shipped(Path(args.config).stem.partition('_')[0])
    with errors.setup():
        cfg = Config.fromfile(args.config)
        launch.set_work_dir(cfg, args.work_dir)
        launch.set_dataloader_defaults(cfg)
        if args.export is None:
            launch.set_resume(cfg, 'auto')
            runner = launch.build_runner(cfg, 'none')
    checkpoint = args.export
    if checkpoint is None:
        runner.train()
        checkpoint = Path(cfg.work_dir) / f'epoch_{runner.epoch}.pth'
    with errors.setup():
        pretrained.export_backbone(checkpoint, out, {'config': Path(args.config).name})
    summary.tell(f'wrote {out} ({Path(out).stat().st_size:,} bytes)')
