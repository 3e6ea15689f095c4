"""What the command-line tools share: one way to tell a user's mistake, and to build a run.

A mistake (an unknown recipe, a missing file, an option out of range) is told in one line, and the
tool exits with 2. ``GLEAM_TRACEBACK=1`` shows where it came from. Anything that goes wrong once a
run is under way keeps its traceback.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

TRACEBACK_VARIABLE = 'GLEAM_TRACEBACK'

# What configs, registries, datasets and checkpoints raise when they do not fit each other.
SETUP_ERRORS = (
    AssertionError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
)


class UserError(Exception):
    """A mistake of the user's; the message names the file, key or argument and what to do."""


@contextmanager
def setup() -> Iterator[None]:
    """Turns the errors of setting up a run into :class:`UserError`."""
    try:
        yield
    except SETUP_ERRORS as error:
        raise UserError(describe(error)) from error


def describe(error: BaseException) -> str:
    """The message of an error, free of what Python and the data loader wrap around it."""
    wrapped = isinstance(error, KeyError) and error.args  # str() of a KeyError is a repr
    message = str(error.args[0]) if wrapped else str(error)
    if message.startswith('Caught ') and 'worker process' in message:
        message = message.strip().splitlines()[-1]  # a data loader's worker sends its traceback
    return message or type(error).__name__


def run(main: Callable[[], None]) -> None:
    """Runs a tool's main function, telling mistakes in one line.

    Args:
        main: The function.

    Raises:
        SystemExit: 2 for a mistake, 130 for Ctrl-C.
    """
    tool = Path(sys.argv[0]).name
    sys.path.append(str(Path.cwd()))  # for modules of the user's own, named in custom_imports
    try:
        main()
    except UserError as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        rank = (
            f' (process {os.environ["RANK"]})' if int(os.environ.get('WORLD_SIZE', 1)) > 1 else ''
        )
        print(f'{tool}: error{rank}: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f'{tool}: interrupted', file=sys.stderr)
        sys.exit(130)
