"""The page of the paper's claims: it has what the records say, and each row can be found there."""

import results
import summary


def test_page_is_what_the_records_give():
    page = (summary.HERE / summary.PAGE).read_text()
    assert page == summary.build(summary.LINES, summary.mini(), summary.real()), (
        'make it again: python benchmarks/collect_claims.py'
    )


def test_lines_name_methods_that_the_benchmarks_have():
    on_real = {(first, second) for _, first, second in results.CLAIMS}
    asked = {line.real for line in summary.LINES if line.real}
    assert asked <= on_real


def test_cells_say_numbers_and_verdict():
    numbers = summary.paired.compare(
        {('a', 0): 70.0, ('b', 0): 60.0}, {('a', 0): 68.0, ('b', 0): 59.0}
    )
    line = summary.Line('A > B', '1 against 2', ('a', 'b'), ('c', 'd'))
    page = summary.build([line], {('a', 'b'): (numbers, 'holds')}, {})
    assert page.splitlines()[-1] == (
        '| A > B | 1 against 2 | +1.5 (pairs: 2, tasks: 2): holds | no data |'
    )
