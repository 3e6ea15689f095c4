"""What the flags of commands have in common, each defined once. Every command imports it first.

Nothing here imports gleam_mm, which takes seconds: --help and a wrong flag are answered at once.
"""

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# Threads that wait must not keep cores from the data loader and from other jobs: spinning, they
# slow training on a busy machine down tenfold. OpenMP reads this when torch is loaded.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


PROGRAM = 'gleam-mm'


def _end(number: int, frame: Any) -> None:
    """Ends a tool that is still being imported; nothing is under way yet."""
    told = 'interrupted' if number == signal.SIGINT else f'ended by {signal.Signals(number).name}'
    os.write(2, f'{_program()}: {told}\n'.encode())
    os._exit(128 + number)


def _program() -> str:
    """What messages begin with: ``train.py`` or ``gleam-mm train``."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119
    return PROGRAM if name == '__main__.py' else name  # of python -m, before main() has its say


if multiprocessing.parent_process() is None:  # no worker that imports this once more
    for _name in ('SIGINT', 'SIGTERM', 'SIGHUP'):
        _number = getattr(signal, _name, None)
        if _number is not None and signal.getsignal(_number) is not signal.SIG_IGN:
            signal.signal(_number, _end)

from mmengine.config import DictAction  # noqa: E402


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Ends the tool."""
        self.exit(2, f'{_program()}: error: {message}\n')

    def add_cfg_options(self, example: str, *names: str, **settings: Any) -> None:
        """Adds ``--cfg-options``.

        Args:
            example: What the help text shows.
            *names: Other names of the flag, before its own.
            **settings: As of ``add_argument``.
        """
        self.add_argument(
            *names,
            '--cfg-options',
            nargs='+',
            action=KeyValues,
            metavar='KEY=VALUE',
            **{'default': {}, 'help': f'override config values: {example}', **settings},
        )

    def add_data(self) -> None:
        """Adds ``--data``."""
        self.add_argument(
            '--data',
            metavar='PATH',
            help="take these pictures in the place of the config's: a folder of <class>/*.jpg, "
            'with or without train, val and test above; a .csv, .tar files, a saved dataset of '
            "Hugging Face's; a fifth is held out where there is no val",
        )

    def add_seed(self) -> None:
        """Adds ``--seed``, one of the :func:`overrides`."""
        self.add_argument('--seed', type=int, help='seed of everything random; default: config')

    def add_launcher(self) -> None:
        """Adds the flags of a distributed run."""
        self.add_argument(
            '--launcher',
            choices=['none', 'pytorch', 'slurm', 'mpi'],
            default='none',
            help='what started the processes; tools/dist_*.sh and slurm_*.sh set it',
        )
        self.add_argument('--local_rank', '--local-rank', action=_LocalRank, help=argparse.SUPPRESS)


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """What ``--cfg-options`` and ``--seed`` say of the config; the latter counts."""
    seed = {} if args.seed is None else {'randomness.seed': args.seed}
    return {**args.cfg_options, **seed}


class KeyValues(DictAction):
    """MMEngine's ``KEY=VALUE``, ``KEY=a,b`` and ``KEY=[[a,b],[c]]``, or a line of error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Adds the words to the dict."""
        for word in values:
            key, equals, _ = word.partition('=')
            if not (key and equals):
                parser.error(f'{option_string} {word}: expected {self.metavar}')
            try:
                super().__call__(parser, namespace, [word], option_string)
            except (AssertionError, RecursionError):  # MMEngine does not notice '(a),(b)'
                parser.error(
                    f'{option_string} {word}: its brackets do not fit; a list is {key}=[a,b], and '
                    f'a list of lists {key}=[[a,b],[c]]'
                )


class _LocalRank(argparse.Action):
    """How old launchers tell a process which one it is; new ones set the variable themselves."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: str,
        option_string: str | None = None,
    ) -> None:
        """Sets the variable."""
        os.environ.setdefault('LOCAL_RANK', value)
