"""The adapters that ship with the package: lists them, copies one, or checks them.

`get` writes the adapter, the config of its training and its card into a folder, and needs no
network. `verify` checks each file by its SHA-256, and that the adapter loads onto the frozen
weights that are here; it exits with 1 if one does not.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the command and its flags."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('list', help='list the adapters')
    get = commands.add_parser('get', help='copy an adapter, its config and its card')
    get.add_argument('name', help='as `list` has it')
    get.add_argument('--out', default='.', metavar='FOLDER', help='default: the current folder')
    verify = commands.add_parser('verify', help='check adapters')
    verify.add_argument('names', nargs='*', metavar='NAME', help='default: all')
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gleam_mm import errors
    from gleam_mm.checkpoint import CheckpointError
    from gleam_mm.inference import zoo
    from gleam_mm.output import escape, tables

    with errors.setup():
        known = zoo.entries()
        names = [zoo.entry(name).name for name in getattr(args, 'names', ())] or list(known)
        if args.command == 'get':
            for path in zoo.get(args.name, args.out):
                print(f'wrote {path}')
            return 0
    if args.command == 'list':
        head = ['adapter', 'parameters', 'head', 'size', 'val', 'test', 'frozen weights']
        rows = [
            [
                entry.name,
                f'{entry.parameters:,}',
                f'{entry.head:,}',
                tables.size(entry.size),
                f'{entry.headline("val"):.2f}',
                f'{entry.headline("test"):.2f}',
                entry.backbone_fingerprint[:12],
            ]
            for entry in known.values()
        ]
        print(tables.text(head, rows, left=['adapter']))
        return 0
    failed = 0
    for name in names:
        try:
            print(f'{name}: {zoo.verify(name)}')
        except (CheckpointError, OSError) as error:
            failed = 1
            print(escape.terminal(str(error)))
    return failed
