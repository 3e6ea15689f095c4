"""Checks VTAB-1K and few-shot FGVC on disk, or builds them from what you have.

    prepare_data.py verify                           everything under data/ or $GLEAM_DATA
    prepare_data.py verify data/vtab-1k --tasks cifar dtd --decode
    prepare_data.py vtab cifar svhn --from tfds --source ~/tensorflow_datasets
    prepare_data.py vtab dtd --from torchvision --source ~/torch --dry-run
    prepare_data.py fgvc cars --source ~/cars --lists ~/NOAH/data/few-shot
    prepare_data.py where                            where the originals come from

Exits with 1 where verify finds a fault.
"""

import argparse

from gleam_mm_cli.flags import Parser

KINDS = ('tfds', 'torchvision', 'huggingface', 'folder')


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)

    verify = commands.add_parser('verify', help='check every list and the files it names')
    verify.add_argument(
        'root', nargs='?', help='vtab-1k, fgvc, or what holds them; default: $GLEAM_DATA or data'
    )
    verify.add_argument('--tasks', nargs='+', help='only these; default: all')
    verify.add_argument('--decode', action='store_true', help='decode every image, in parallel')
    verify.add_argument('--workers', type=int, help='processes that decode; default: all cores')
    verify.add_argument(
        '--any-size', action='store_true', help='lists may be shorter or longer than the originals'
    )
    verify.add_argument('--all', action='store_true', help='print every fault, not 20 of a list')
    verify.add_argument('--per-class', action='store_true', help='print the lines of every class')

    for name, folder, help_text in (
        ('vtab', 'vtab-1k', 'build tasks of VTAB-1K'),
        ('fgvc', 'fgvc', 'build few-shot FGVC sets'),
    ):
        build = commands.add_parser(name, help=help_text)
        build.add_argument('tasks', nargs='+', help='names of tasks')
        build.add_argument('--source', required=True, help='what you have: a folder')
        build.add_argument('--out', help=f'folder to write to; default: $GLEAM_DATA/{folder}')
        build.add_argument('--seed', type=int, default=0, help='of the choice of images')
        build.add_argument('--sizes', nargs='+', type=int, help='smaller sizes, to try things out')
        build.add_argument('--image-column', help='of a Hugging Face dataset')
        build.add_argument('--label-column', help='of a Hugging Face dataset')
        for split in ('train', 'val', 'test'):
            build.add_argument(f'--{split}-list', help='official split file of a folder of images')
        build.add_argument('--workers', type=int, help='threads that compress; default: all cores')
        build.add_argument('--dry-run', action='store_true', help='print the plan, write nothing')
        kinds = KINDS if name == 'vtab' else KINDS[1:]
        build.add_argument(
            '--from', dest='kind', choices=kinds, default=kinds[-1], help='what the source is'
        )
        if name == 'fgvc':
            build.add_argument('--lists', help='folder of the published lists: exactly those')
            build.add_argument('--shots', nargs='+', type=int, default=[1, 2, 4, 8, 16])
            build.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])

    commands.add_parser('where', help='tell where the original datasets come from')
    return parser.parse_args()


def main(args: argparse.Namespace) -> int | None:
    """Verifies, builds or tells."""
    from gleam_mm.prepare import actions

    return actions.COMMANDS[args.command](args)
