"""What every form makes of one table: which numbers are set off, and what hostile names do."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from gleam_mm.output import tables
from gleam_mm.output.tables import Cell, Column, Line, Table

HOSTILE = '<script>=a|b\n\\input{x}'


def number(value, **more):
    return Cell(f'{value:.1f}', value, **more)


def make(*rows, best=('acc',), **more):
    """A table of rows (label, size, accuracy, source)."""
    lines = [
        Line(label, (Cell(str(size), size), accuracy), source)
        for label, size, accuracy, source in rows
    ]
    columns = (Column('size', 'Size', 'group'), Column('acc', 'Accuracy'))
    given = dict(key='key', context='About', name='name', columns=columns, best=frozenset(best))
    return Table(lines=tuple(lines), **{**given, **more})


def bold(table):
    """The numbers that Markdown, LaTeX and HTML set off."""
    return [
        re.findall(r'\*\*(.*?)\*\*', tables.markdown(table)),
        re.findall(r'\\textbf{(.*?)}', tables.latex(table)),
        re.findall(r'class="best[^"]*"[^>]*><span class="value">(.*?)<', tables.html(table)),
    ]


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_highest_measured_number_is_set_off(order):
    rows = [
        ('low', 3, number(10.0), 'measured'),
        ('high', 1, number(90.0), 'measured'),
        ('middle', 2, number(50.0), 'measured'),
    ]
    table = make(
        *(rows[place] for place in order),
        ('quoted', 9, number(99.0), 'paper'),
        ('none', 9, Cell(), 'measured'),
    )
    assert bold(table) == [['90.0']] * 3


def test_nothing_is_set_off_alone_or_where_nothing_is_asked_for():
    one, two = ('a', 1, number(10.0), 'measured'), ('b', 2, number(20.0), 'measured')
    assert bold(make(one)) == bold(make(one, two, best=())) == [[]] * 3
    assert bold(make(one, ('quoted', 2, number(20.0), 'paper'))) == [[]] * 3


def test_equals_are_set_off_together():
    rows = [
        (name, 1, number(value), 'measured')
        for name, value in zip('abc', (7.0, 7.0, 1.0), strict=True)
    ]
    assert bold(make(*rows)) == [['7.0', '7.0']] * 3


def test_deviations_and_missing_seeds_are_told():
    table = make(('a', 1, number(70.0, deviation=1.25, partial=True), 'measured'))
    assert '| a | 1 | 70.0 ± 1.2 † |' in tables.markdown(table)
    assert r'a & 1 & 70.0 {\tiny $\pm$ 1.2}$^\dagger$ \\' in tables.latex(table)
    assert '70.0</span>†<small>± 1.2</small>' in tables.html(table)
    for form in (tables.markdown, tables.latex, tables.html):
        assert 'fewer seeds than planned' in form(table)
        assert 'fewer seeds' not in form(make(('a', 1, number(70.0), 'measured')))


def test_csv_has_unrounded_numbers_and_deviations():
    table = make(
        ('a', 1, number(70.123456789, deviation=0.5), 'measured'),
        ('b', 2, Cell(), 'measured'),
        ('c', 3, Cell('all'), 'paper'),
    )
    assert tables.table_csv(table) == (
        'section,method,source,size,acc,acc_std\n'
        ',a,measured,1,70.123456789,0.5\n'
        ',b,measured,2,,\n'
        ',c,paper,3,all,\n'
    )


def hostile():
    line = Line(HOSTILE, (Cell(HOSTILE), Cell(HOSTILE, note=HOSTILE)), 'measured', HOSTILE)
    columns = (Column(HOSTILE, HOSTILE, HOSTILE), Column('b', 'b'))
    return Table(HOSTILE, HOSTILE, HOSTILE, columns, (line,), HOSTILE, HOSTILE)


def test_hostile_names_leave_html_as_it_is():
    tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.append(tag)
            assert not any(name.startswith('on') for name, _ in attributes)

        def handle_endtag(self, tag):
            assert tag in tags

    Reader().feed(tables.html(hostile()))
    assert set(tags) <= {'h3', 'div', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'span', 'p'}


def test_hostile_names_leave_rows_of_markdown_as_wide_as_their_head():
    text = tables.markdown(hostile())
    rows = [line for line in text.splitlines() if line.startswith('|')]
    assert len(rows) == 4
    assert {re.sub(r'\\.', '', row).count('|') for row in rows} == {4}
    assert '<script>' not in text


def test_hostile_names_leave_rows_of_latex_as_wide_as_their_columns():
    text = tables.latex(hostile())
    assert r'\input' not in text
    body = text.split(r'\midrule')[-1].split(r'\bottomrule')[0]
    *_, row = body.strip().splitlines()
    assert row.count('&') == 2
    assert re.search(r'\\label{tab:[\w-]+}', text)


def test_hostile_names_are_text_for_a_spreadsheet():
    *_, row = csv.reader(io.StringIO(tables.csv([('=1+1', '-2', -2.5, None, 'a,"b"')])))
    assert row == ["'=1+1", "'-2", '-2.5', '', 'a,"b"']


def test_a_terminal_gets_columns_of_one_width():
    found = tables.text(('name', 'n'), [('a\x1b[31m', '1'), ('bb', '1,000')], left=('name',))
    assert found.splitlines() == [
        'name           n',
        '---------  -----',
        r'a\x1b[31m      1',
        'bb         1,000',
    ]


def test_sizes():
    assert [tables.size(n) for n in (87_500, 1_000_000, 343_210_000)] == [
        '87.5 KB',
        '1.0 MB',
        '343.2 MB',
    ]


def test_times():
    assert [tables.clock(s) for s in (9.6, 123, 3723, None)] == ['0:10', '2:03', '1:02:03', '-:--']
