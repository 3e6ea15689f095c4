"""Telling a user's mistake from anything else that goes wrong; every floor above raises these.

A mistake (an unknown recipe, a missing file, an option out of range) is told in one line. Anything
that goes wrong once a run is under way keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

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
        # A data loader's worker sends its traceback; the last line is `<type>: <message>`.
        last = message.strip().splitlines()[-1]
        message = last.partition(': ')[2] or last
    return message or type(error).__name__
