"""Arguments checked where they enter, by what their annotations say; every floor above uses this.

``bool`` takes no text and no number, ``int`` no bool, and ``float`` finite numbers only.
``Literal`` lists choices, :class:`Range` bounds numbers. A list of texts is one of names: it is not
empty, and names nothing twice.
"""

import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from gleam_mm.messages import hint_at, shown

__all__ = [
    'ArgumentError',
    'Checked',
    'Natural',
    'NonNegative',
    'Positive',
    'Probability',
    'Range',
    'argument_names',
    'arguments_of',
    'check',
    'check_call',
    'takes_any',
]

_Init = TypeVar('_Init', bound=Callable[..., None])


@dataclass(frozen=True)
class Range:
    """Numbers from ``least`` on, and below ``below``; without ``least`` itself if ``open``."""

    least: float
    below: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        return self.least <= value < self.below and not (self.open and value == self.least)

    def __str__(self) -> str:
        start = f'above {self.least}' if self.open else f'of at least {self.least}'
        return start if self.below == math.inf else f'{start} and below {self.below}'


Positive = Annotated[int, Range(1)]
"""A number of things, of which there is at least one; a rank or an inner width."""

Natural = Annotated[int, Range(0)]
"""A number of things, of which there may be none."""

NonNegative = Annotated[float, Range(0)]
"""A weight, a rate or a standard deviation."""

Probability = Annotated[float, Range(0, 1)]
"""The share that is dropped: never everything."""

_SIMPLE = {
    bool: 'True or False',
    int: 'a whole number',
    float: 'a finite number',
    str: 'a text',
    Path: 'a path',
    types.NoneType: 'None',
}


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

_PLURAL = {
    int: 'whole numbers',
    float: 'finite numbers',
    str: 'names, at least one and none twice',
}


class ArgumentError(TypeError, ValueError):
    """An argument has a name that there is not, or is of another type or out of range.

    Which of both built-in errors that is, is no question for who called: ``rank=2.5`` is either.
    """


class Checked:
    """A class whose arguments are checked by the annotations of its ``__init__`` before that runs.

    Attributes:
        elsewhere: Of arguments that one may look for here and that belong to something else: whose
            they are.

    Raises:
        ArgumentError: One does not fit.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Checks the arguments; copies and pickles come without any."""
        check_call(cls, args, kwargs)
        return super().__new__(cls)


def argument_names(cls: type) -> set[str]:
    """What a class is built with: its arguments, and those of its bases where it hands on to them.

    It hands on to the next base as long as its ``__init__`` takes ``**kwargs``.
    """
    return {p.name for p in _handed_on(cls) if p.kind not in _VARIADIC}


def takes_any(cls: type) -> bool:
    """Whether a class keeps what ``**kwargs`` hold, instead of handing them on to its bases."""
    last = _handed_on(cls)[-1:]
    return cls.__init__ is not object.__init__ and any(p.kind is p.VAR_KEYWORD for p in last)


def _handed_on(cls: type) -> list[inspect.Parameter]:
    """The arguments of a class and of all bases to which it hands on."""
    handed_on: list[inspect.Parameter] = []
    for base in cls.__mro__:
        if '__init__' in vars(base):
            _, *parameters = inspect.signature(base.__init__).parameters.values()  # without self
            handed_on += parameters
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return handed_on


def arguments_of(other: type, *without: str) -> Callable[[_Init], _Init]:
    """Lets an ``__init__`` have the arguments of another class, to which it hands ``**kwargs``.

    They are told, checked and written down as if each was named, with the other class's defaults.

    Args:
        other: The other class.
        *without: Its arguments that are not handed on.
    """
    theirs = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for name, parameter in _signature(other)[0].items()
        if name not in without
    ]
    hints = typing.get_type_hints(other.__init__, include_extras=True)  # type: ignore[misc]

    def named(init: _Init) -> _Init:
        ours = inspect.signature(init)
        own = [p for p in ours.parameters.values() if p.kind is not p.VAR_KEYWORD]
        told: Any = init
        told.__signature__ = ours.replace(parameters=[*own, *theirs])
        told.__annotations__ = {
            **{p.name: p.annotation for p in own if p.annotation is not p.empty},
            **{parameter.name: hints[parameter.name] for parameter in theirs},
        }
        return init

    return named


def check_call(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Checks what a class is called with. What is missing, Python itself tells.

    Raises:
        ArgumentError: One does not fit.
    """
    parameters, hints = _signature(cls)
    names = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in kwargs:
        if name not in parameters and not takes_any:
            told = getattr(cls, 'elsewhere', {}).get(name)
            near = f': {told}' if told else hint_at(name, parameters)
            raise ArgumentError(
                f'{cls.__name__} has no argument {name!r}{near}; it has '
                f'{", ".join(parameters) or "none"}'
            )
    for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
        if name in hints:
            check(value, hints[name], f'{cls.__name__}: {name}')


def check(value: Any, hint: Any, name: str) -> None:
    """Checks one value by an annotation.

    Args:
        value: The value.
        hint: The annotation.
        name: What messages call the value.

    Raises:
        ArgumentError: It does not fit.
    """
    if _fits(value, hint):
        return
    near = ''
    if isinstance(value, str):
        choices = [str(choice) for choice in _choices(hint)]
        near = hint_at(value, choices) if choices else _as_list(value, hint)
    raise ArgumentError(f'{name}={shown(value)}: choose {_words(hint)}{near}')


@cache
def _signature(cls: type) -> tuple[Mapping[str, inspect.Parameter], Mapping[str, Any]]:
    parameters = dict(inspect.signature(cls.__init__).parameters)
    parameters.pop(next(iter(parameters)))  # self
    try:
        hints = typing.get_type_hints(cls.__init__, include_extras=True)
    except NameError:  # something that is imported for type checkers only
        hints = {}
    named = {name for name, p in parameters.items() if p.kind not in _VARIADIC}
    return parameters, {name: hint for name, hint in hints.items() if name in named}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation asks for."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        ranges = (condition for condition in args[1:] if isinstance(condition, Range))
        return _fits(value, args[0]) and all(value in allowed for allowed in ranges)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in args)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in args)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max  # and no NaN
    if origin is Sequence:
        return _fits_list(value, args[0])
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _fits_list(value: Any, hint: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    if hint is str and not 0 < len(value) == len(set(value)):
        return False
    # A list of other things than words and numbers is its class's own matter.
    return not _is_named(hint) or all(_fits(one, hint) for one in value)


def _is_named(hint: Any) -> bool:
    """Whether messages have words for the plural of an annotation."""
    return (get_args(hint)[0] if get_origin(hint) is Annotated else hint) in _PLURAL


def _words(hint: Any, simple: Mapping[Any, str] | None = None) -> str:
    """What an annotation asks for."""
    simple = simple or _SIMPLE
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [str(allowed) for allowed in args[1:] if isinstance(allowed, Range)]
        return ' '.join([_words(args[0], simple).replace('finite ', ''), *bounds])
    if origin in (Union, types.UnionType):
        return ' or '.join(_words(one) for one in args)
    if origin is Literal:
        return ' or '.join(map(repr, args))
    if origin is Sequence:
        return f'a list of {_words(args[0], _PLURAL)}' if _is_named(args[0]) else 'a list'
    if hint in simple:
        return simple[hint]
    kind = origin or hint
    return 'a dict' if kind in (dict, Mapping) else f'a {getattr(kind, "__name__", kind)}'


def _as_list(value: str, hint: Any) -> str:
    return f', such as [{value!r}]' if _fits([value], hint) else ''


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for one in get_args(hint) if get_origin(hint) for choice in _choices(one)]
