"""From the name of a command to its end."""

import argparse
import importlib
import sys
from typing import Any

from gleam_mm_cli.flags import PROGRAM, Parser

COMMANDS = {
    'train': 'train a config or a recipe, and test it',
    'doctor': 'look for what would stop or spoil a training',
    'test': 'test a checkpoint or an adapter',
    'predict': 'tell the classes of pictures by an adapter',
    'serve': 'serve many adapters on one backbone over HTTP',
    'recipes': 'list backbones, methods and datasets, or export a recipe',
    'params': 'count parameters',
    'sweep': 'train methods x datasets x a grid x seeds on many workers',
    'report': 'make tables and figures of sweeps',
    'analyze': 'look into trained methods',
    'search': 'search a supernet for its best subnet',
    'merge': 'fold a method into its backbone',
    'export': 'write a trained model for other runtimes',
    'compress': 'make an adapter file smaller',
    'combine': 'make one adapter of several',
    'extract': 'make a LoRA adapter of a fully tuned checkpoint',
    'incremental': 'learn classes session by session',
    'verify': 'check files of weights',
    'zoo': 'list, copy or check the adapters that ship with the package',
    'prepare-data': 'check or build VTAB-1K and few-shot FGVC',
    'fetch-weights': 'download pretrained weights',
    'convert-weights': 'convert pretrained weights',
    'mmpretrain-tool': 'run a tool of the installed MMPretrain',
    'pretrain': 'make the backbones that ship with the package again',
}
"""The commands, and what each is for."""


def main() -> None:
    """``gleam-mm COMMAND ...``: what the console script runs."""
    sys.argv[0] = PROGRAM  # what messages begin with
    parser = Parser(
        description='Parameter-efficient transfer learning of vision transformers.',
        epilog=f'{PROGRAM} COMMAND --help tells more of each.',
        usage=f'{PROGRAM} COMMAND ...',
    )
    parser.add_argument('--version', action=_Version, nargs=0, help='print the version')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    name = parser.parse_args(sys.argv[1:2]).command
    sys.argv[:2] = [f'{PROGRAM} {name}']
    run(name)


def run(name: str) -> None:
    """Runs a command with the flags of ``sys.argv``, and ends the process as it should end.

    Args:
        name: One of :data:`COMMANDS`.
    """
    command = importlib.import_module(f'gleam_mm_cli.{name.replace("-", "_")}')
    args = command.parse_args()  # first: importing gleam_mm takes seconds

    from gleam_mm import cli

    cli.run(lambda: command.main(args))


class _Version(argparse.Action):
    """Prints the version, for which gleam_mm is imported."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Prints it, and ends the program."""
        from gleam_mm.version import __version__

        parser.exit(0, f'{__version__}\n')
