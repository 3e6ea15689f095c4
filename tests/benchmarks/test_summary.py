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
    said = summary.mini(), summary.second(), summary.real()
    assert page == summary.build(summary.LINES, *said), (
        'make it again: python benchmarks/collect_claims.py'
    )


def test_lines_name_methods_that_the_benchmarks_have():
    on_real = {(claim.first, claim.second) for claim in results.ASKED.comparisons}
    on_tuned = {(claim.first, claim.second) for claim in tuned.ASKED.comparisons}
    assert {line.real for line in summary.LINES if line.real} <= on_real | on_tuned


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
