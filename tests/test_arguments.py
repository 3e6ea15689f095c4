import copy
import inspect
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from gleam_mm import petl
from gleam_mm.arguments import (
    ArgumentError,
    Checked,
    Natural,
    NonNegative,
    Positive,
    Probability,
    argument_names,
    check,
)
from gleam_mm.petl import GLEAM, VPT, Adapter, Compose, LoRA, PETLMethod

NAN, INF = float('nan'), float('inf')


class Parent(Checked):
    def __init__(self, number: int, *, words: Sequence[str] = ('a',)) -> None:
        self.number, self.words = number, words


class Child(Parent):
    def __init__(self, share: Probability = 0.5) -> None:
        super().__init__(1, words=('b',))
        self.share = share


class Free(Checked):
    def __init__(self, anything, **options: int) -> None:
        self.anything, self.options = anything, options


@pytest.mark.parametrize(
    ('hint', 'good', 'bad'),
    [
        (bool, [True, False], ['no', 0, 1, None]),
        (int, [0, -3], [True, 1.0, '1', None, [1]]),
        (float, [0, 1.5, -2, 10**300], [True, NAN, INF, -INF, 10**400, '1', None]),
        (str, ['', 'a'], [1, None, ['a']]),
        (Positive, [1, 7], [0, -1, 1.0, True]),
        (Natural, [0, 7], [-1, 0.5, False]),
        (NonNegative, [0, 0.5], [-0.1, NAN, INF]),
        (Probability, [0, 0.99], [1, 1.5, -0.1, NAN]),
        (Literal['tt', 'tk'], ['tt'], ['TT', 'cp', None, 0]),
        (Sequence[int], [[], (1, 1), range(3)], ['12', {1}, [1.5], [True], 3]),
        (Sequence[str], [['a'], ('a', 'b')], ['a', [], ['a', 'a'], [1], {'a'}]),
        (Sequence[int] | None, [None, [1]], [0, 'a']),
        (Positive | Sequence[Natural], [1, [0]], [0, [-1], '1']),
        (dict | str | Path, [{}, '', Path()], [1, None, []]),
    ],
)
def test_values_fit_annotations(hint, good, bad):
    for value in good:
        check(value, hint, 'key')
    for value in bad:
        with pytest.raises(ArgumentError, match=r'key=.*: choose '):
            check(value, hint, 'key')


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: LoRA(0), 'LoRA: rank=0: choose a whole number of at least 1'),
        (lambda: LoRA(rank='8'), "LoRA: rank='8': choose a whole number of at least 1"),
        (lambda: LoRA(alpha=NAN), 'LoRA: alpha=nan: choose a finite number'),
        (lambda: LoRA(drop_rate=2), 'drop_rate=2: choose a number of at least 0 and below 1'),
        (lambda: GLEAM(moe='no'), "GLEAM: moe='no': choose True or False"),
        (lambda: GLEAM(top_k=1.5), 'GLEAM: top_k=1.5: choose a whole number of at least 1'),
        (lambda: GLEAM(gate='imgae'), "choose 'image' or 'token' (did you mean 'image'?)"),
        (lambda: Adapter(sites=[]), 'sites=[]: choose a list of names, at least one and none'),
        (lambda: Adapter(sites=['fc2', 'fc2']), "sites=['fc2', 'fc2']: choose a list of names"),
        (lambda: Adapter(blocks=[]), 'Adapter: blocks=[]: name at least one'),
        (lambda: Adapter(blocks=[0, 0]), 'Adapter: blocks=[0, 0]: name at least one, and none'),
        (
            lambda: VPT([1, 0.5]),
            'choose a whole number of at least 1 or a list of whole numbers of at least 0',
        ),
        (lambda: LoRA(rnak=1), "LoRA has no argument 'rnak' (did you mean 'rank'?); it has rank, "),
        (
            lambda: Compose([dict(type='LoRA')], blocks=[-1]),
            "Compose has no argument 'blocks': each of its methods has its own; it has methods",
        ),
    ],
)
def test_methods_tell_in_one_line(make, message):
    with pytest.raises(ArgumentError if 'blocks' not in message else ValueError) as caught:
        make()
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_subclass_is_checked_by_its_own_annotations_alone():
    assert Child(0.25).share == 0.25
    with pytest.raises(ArgumentError, match='Child: share=1:'):
        Child(1)
    with pytest.raises(ArgumentError, match='Parent: words='):
        Parent(1, words='word')
    with pytest.raises(TypeError, match='missing 1 required'):
        Parent()


def test_what_has_no_annotation_is_let_through():
    free = Free(object(), any_name='text')
    assert free.options == {'any_name': 'text'}


def test_copies_and_pickles_come_without_arguments():
    child = Child(0.25)
    assert copy.deepcopy(child).share == 0.25
    assert pickle.loads(pickle.dumps(child)).share == 0.25


def _methods(parent=PETLMethod):
    for method in parent.__subclasses__():
        if method.__module__.startswith(petl.__name__):
            yield method
        yield from _methods(method)


@pytest.mark.parametrize('method', list(_methods()), ids=lambda method: method.__name__)
def test_every_argument_of_every_method_is_annotated(method):
    parameters = list(inspect.signature(method.__init__).parameters.values())[1:]
    lacking = [p.name for p in parameters if p.annotation is p.empty]
    assert lacking == []
    for p in parameters:
        if p.name in ('rank', 'bottleneck'):
            with pytest.raises(ValueError, match=f'{p.name}=0: choose a whole number'):
                method(**{p.name: 0})


def test_the_names_of_arguments_end_where_none_are_handed_on():
    class Base:
        def __init__(self, depth, *args):
            pass

    class Fixed(Base):
        def __init__(self, width, **kwargs):
            pass

    class Shut(Fixed):
        def __init__(self, height):
            pass

    assert argument_names(Base) == {'depth'}
    assert argument_names(Fixed) == {'width', 'depth'}
    assert argument_names(Shut) == {'height'}
