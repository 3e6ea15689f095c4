"""Telling a user's mistake from anything else that goes wrong; every floor above raises these.

A mistake (an unknown recipe, a missing file, an option out of range) is told in one line. Anything
that goes wrong once a run is under way keeps its traceback.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

from mmengine import registry

from gleam_mm.messages import hint_at

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


_UNKNOWN = re.compile(r'(\S+) is not in the (?:\S+::)?([\w ]+) registry\. ')  # MMEngine's message


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
    if unknown := _UNKNOWN.match(message):
        return unknown_type(*unknown.groups())
    if message.startswith('Caught ') and 'worker process' in message:
        # A data loader's worker sends its traceback; the last line is `<type>: <message>`.
        last = message.strip().splitlines()[-1]
        message = last.partition(': ')[2] or last
    return message or type(error).__name__


def unknown_type(name: str, kind: str) -> str:
    """Says what MMEngine links to its docs for: a type is in no registry of its kind."""
    known: set[str] = set()
    registries = [root for root in vars(registry).values() if isinstance(root, registry.Registry)]
    registries = [root for root in registries if root.name == kind]
    while registries:
        one = registries.pop()
        known |= one.module_dict.keys()
        registries += one.children.values()
    return (
        f'type={name!r}: there is no such {kind}{hint_at(name, known)}; one of your own is found '
        'once its module is imported, by custom_imports of a config'
    )
