"""How every command-line tool ends; it stands above all folders, and only tools import it.

A mistake of the user's is told in one line, and the tool exits with 2. ``GLEAM_TRACEBACK=1`` shows
where it came from.
"""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from gleam_mm import interrupts
from gleam_mm.errors import UserError
from gleam_mm.output import escape

TRACEBACK_VARIABLE = 'GLEAM_TRACEBACK'


def run(main: Callable[[], int | None]) -> None:
    """Runs a tool's main function, and ends the process as it should end.

    Args:
        main: The function. It returns the exit status, or None for 0.

    Raises:
        SystemExit: The status; 2 for a mistake, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP,
            and 141, as of a process that SIGPIPE ended, where nobody reads the output any more
            (``tool | head``).
    """
    tool = Path(sys.argv[0]).name
    sys.path.append(str(Path.cwd()))  # for modules of the user's own, named in custom_imports
    escape.unencodable_on_stdout()
    try:
        with interrupts.raised():
            code = main()
            sys.stdout.flush()
    except UserError as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        several = os.environ.get('WORLD_SIZE', '1') != '1' and 'RANK' in os.environ
        rank = f' (process {os.environ["RANK"]})' if several else ''
        told = re.sub(r'\s*\n\s*', ' ', str(error).strip())  # PyTorch's have several lines
        print(f'{tool}: error{rank}: {escape.terminal(told)}', file=sys.stderr)
        code = 2
    except KeyboardInterrupt as stop:
        number = getattr(stop, 'number', signal.SIGINT)
        told = 'interrupted' if number == signal.SIGINT else f'ended by {number.name}'
        print(f'{tool}: {told}', file=sys.stderr)
        code = 128 + number
    except BrokenPipeError:
        # Python flushes once more at the end; that must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    if code:
        sys.exit(code)
