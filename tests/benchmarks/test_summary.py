"""The page of claims and README's figure: they have what the records say, and it is found there."""

import re
from collections import Counter

import claims
import per_task
import pytest
import records
import results
import summary
import tuned


def test_page_is_what_the_records_give():
    page = (summary.HERE / summary.PAGE).read_text()
    assert page == summary.whole(), 'make it again: python benchmarks/collect_claims.py'


def test_lines_name_methods_that_the_benchmarks_have():
    trainings = records.read(records.FOLDER / records.CSV)
    first = {row.method for row in trainings if row.study in claims.STUDIES}
    second = {row.method for row in trainings if row.study in claims.TUNED}
    on_real = {row.method for row in records.read(summary.HERE / 'real' / records.CSV)}
    known = first | second | on_real
    assert {name for line in summary.LINES if line.mini for name in line.mini} <= first
    assert {name for line in summary.LINES if line.real for name in line.real} <= known


def test_what_is_not_asked_has_numbers_and_no_verdict():
    claim = claims.Claim('x', '', (claims.Comparison('a', 'b'), claims.Comparison('c', 'b')))
    scores = {name: {('t', 0): value} for name, value in (('a', 60.0), ('b', 50.0), ('d', 40.0))}
    said = summary._says(scores, [claim], [('a', 'b'), ('d', 'b'), ('c', 'd'), None])
    assert {pair: verdict for pair, (_, verdict) in said.items()} == {
        ('a', 'b'): 'not decided',  # a single task
        ('c', 'b'): 'no data',
        ('d', 'b'): 'not among its claims',
    }
    assert said['d', 'b'][0].mean == -10.0


def seen(name, **cosines):
    """What homogeneity.json has of a model: role -> cosines of its updates and frozen outputs."""
    roles = {
        role: {path: {'adjacent': {'cosine': v}} for path, v in zip(paths, pair, strict=True)}
        for paths in [('update', 'frozen')]
        for role, pair in cosines.items()
    }
    return {'name': name, 'roles': roles}


def test_alike_compares_models_of_the_same_task():
    content = {
        'subjects': [
            seen('slora@a', qkv=(0.75, 0.25), proj=(0.5, 0.0)),
            seen('slora@b', qkv=(0.5, 0.0)),
            seen('slora@c', qkv=(0.9, 0.0)),  # which LoRA lacks
            seen('lora@a', qkv=(0.25, 0.5)),
            seen('lora@b', qkv=(0.75, 0.5)),
        ]
    }
    lines = [
        summary.Alike('shared', '1', ('slora', 'lora'), ('lora', None)),
        summary.Alike('mixed', '2', ('gleam-l', 'lora'), ('lora', 'gleam-l')),
    ]
    page = summary.alike(lines, content, content).splitlines()
    assert page[-2] == '| shared | 1 | qkv +0.12 (1 of 2) | qkv +0.00 (1 of 2) |'
    assert page[-1] == '| mixed | 2 | no data | no data |'


def test_cells_say_numbers_and_verdict():
    numbers = summary.paired.compare(
        {('a', 0): 70.0, ('b', 0): 60.0}, {('a', 0): 68.0, ('b', 0): 59.0}
    )
    line = summary.Line('A > B', '1 against 2', ('a', 'b'), ('c', 'd'))
    page = summary.build([line], {('a', 'b'): (numbers, 'holds')}, {}, {})
    assert page.splitlines()[-1] == (
        '| A > B | 1 against 2 | +1.5 (pairs: 2, tasks: 2): holds | — | no data |'
    )
    page = summary.build([line], {}, {('c', 'd'): (numbers, 'holds')}, {})
    assert page.splitlines()[-1] == (
        '| A > B | 1 against 2 | no data | +1.5 (pairs: 2, tasks: 2): holds | no data |'
    )


@pytest.mark.parametrize('file', ('front.svg', 'front.dark.svg'))
def test_figure_is_what_the_records_give(file):
    trainings = records.read(records.FOLDER / records.CSV)
    second = [row for row in trainings if row.study in claims.TUNED]
    of_mini = per_task.points(second, tuned.TASKS)
    assert len(of_mini) == len({row.method for row in second})
    _, of_real = results.measured(records.read(summary.HERE / 'real' / records.CSV))
    drawn = re.findall('<title>(.*?)</title>', (summary.HERE / file).read_text())
    assert Counter(drawn) == Counter(point.text for point in [*of_mini, *of_real]), (
        'make it again: python benchmarks/collect_claims.py'
    )


def test_figure_names_what_both_benchmarks_have():
    figure = summary.front()
    written = [{text.get_text() for text in ax.texts} for ax in figure.axes]
    assert all({'GLEAM-T', 'GLEAM-L', 'LoRA'} <= names for names in written)
    assert not any('VTAB-1K' in ax.get_title() for ax in figure.axes)  # the paper's are not here
