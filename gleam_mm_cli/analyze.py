"""Looks into trained methods: how alike their updates are, their experts, attention and CAMs.

A SUBJECT is [NAME=]CONFIG:CHECKPOINT; or [NAME=]ADAPTER with --data, whose file describes the
model; or [NAME=]CONFIG, which is the method at its start. Every number that is drawn is in the JSON
file beside the figures.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    command = _add(commands, 'homogeneity', 'how alike updates are between layers', several=True)
    command.add_argument(
        '--roles', nargs='+', metavar='ROLE', help='such as proj; default: all updated Linears'
    )
    _add_data(command, batch_size=16)

    command = _add(commands, 'routing', 'which experts a mixture chooses', several=True)
    _add_data(command, batch_size=64)

    command = _add(commands, 'attention', 'attention rollout, and attention by layer')
    _add_images(command)

    command = _add(commands, 'cam', 'class activation maps, by pytorch-grad-cam')
    _add_images(command)
    command.add_argument('--method', default='gradcam', help='default: gradcam')
    command.add_argument('--target', type=int, help='class number; default: the predicted one')
    command.add_argument(
        '--site',
        help='module of the backbone, such as layers.7.ln1; default: first norm of the last block',
    )
    return parser.parse_args()


def _add(
    commands: argparse._SubParsersAction, name: str, text: str, several: bool = False
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f'{name}: {text}.')
    command.add_argument(
        'subjects',
        nargs='+' if several else 1,
        metavar='SUBJECT',
        help='[NAME=]CONFIG:CHECKPOINT, [NAME=]ADAPTER with --data, or [NAME=]CONFIG',
    )
    command.add_argument(
        '--out',
        default='work_dirs/analysis',
        metavar='FOLDER',
        help='where to write; default: %(default)s',
    )
    command.add_argument('--split', choices=['train', 'val', 'test'], default='test')
    command.add_argument(
        '--data', metavar='CONFIG', help='take the images from the dataset of this config or recipe'
    )
    command.add_argument('--device', default='cpu', help='such as cuda; default: cpu')
    command.add_cfg_options('model.petl.rank=8, of each subject')
    return command


def _add_data(command: argparse.ArgumentParser, batch_size: int) -> None:
    command.add_argument(
        '--max-images', type=int, metavar='N', help='at most N images, evenly spaced; default: all'
    )
    command.add_argument('--batch-size', type=int, default=batch_size, help='default: %(default)s')


def _add_images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--images',
        nargs='+',
        default=None,
        metavar='IMAGE',
        help='numbers in the split, or image files; default: four of the split',
    )


def main(args: argparse.Namespace) -> None:
    """Analyses."""
    from gleam_mm.analysis import analyze

    analyze.run(args)
