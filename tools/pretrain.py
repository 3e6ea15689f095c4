"""Pre-trains a backbone that ships with the package and writes its weights in half precision."""

import argparse
from pathlib import Path

from _flags import Parser

CONFIG = 'configs/pretrain/vit-mini_procedural.py'


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    root = Path(__file__).resolve().parents[1]
    parser = Parser(description=__doc__)
    parser.add_argument('config', nargs='?', default=str(root / CONFIG), help=f'default: {CONFIG}')
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
    args = parser.parse_args()
    if args.out is None:
        name = Path(args.config).stem.partition('_')[0]
        args.out = str(root / f'gleam_mm/weights/{name}.safetensors')
    return args


def main(args: argparse.Namespace) -> None:
    """Trains, or goes on with a training that was interrupted, and writes the file."""
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
        export_backbone(checkpoint, args.out, {'config': Path(args.config).name})
    summary.tell(f'wrote {args.out} ({Path(args.out).stat().st_size:,} bytes)')


def export_backbone(checkpoint: str | Path, out: str | Path, metadata: dict[str, str]) -> None:
    """Writes the backbone of a classifier's checkpoint, without its head, in half precision.

    Integers, such as the indices of Swin's position biases, stay what they are.
    """
    weights = {
        key.removeprefix('backbone.'): (
            value.half() if value.is_floating_point() else value
        ).contiguous()
        for key, value in read_state_dict(checkpoint).items()
        if key.startswith('backbone.')
    }
    if not weights:
        raise ValueError(f'{checkpoint}: no key begins with "backbone."; is it a classifier?')
    write_bytes(out, safetensors.torch.save(weights, {'format': 'pt', **metadata}))


if __name__ == '__main__':
    arguments = parse_args()  # first: importing what follows takes seconds

    import safetensors.torch
    from mmengine.config import Config

    from gleam_mm import cli, errors
    from gleam_mm.checkpoint import read_state_dict
    from gleam_mm.engine import launch, summary
    from gleam_mm.fileio import write_bytes

    cli.run(lambda: main(arguments))
