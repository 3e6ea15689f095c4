"""Hostile names do nothing in any medium, as its own reader sees it."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from gleam_mm.output import escape

HOSTILE = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '&lt;b&gt;',
    '../../evil',
    '=HYPERLINK("http://evil","x")',
    '+1',
    '-1+cmd|calc',
    '@SUM(A1)',
    '\t=1',
    '\r=1',
    '  =1',
    '＝1',  # noqa: RUF001 - some spreadsheets take it for the ASCII sign
    r'\input{/etc/passwd}',
    '}$^^5c%#_~',
    'a|b',
    'a\\|b',
    '`x` | y',
    'one\n| two',
    '**bold** _it_ ~~no~~ [link](http://evil)',
    '[bold red]red[/bold red]',
    '[/]',
    '\x1b[31mred\x1b]0;title\x07',
    'half \udc80',
    'right \u202e left',
    '$\\frac$ and $',
    ':smile:',
    '',
]
names = pytest.mark.parametrize('name', HOSTILE)


@names
def test_a_terminal_gets_one_printable_line(name):
    shown = escape.terminal(name)
    assert shown.isprintable()
    # What prints stays as it is.
    assert shown == name or not name.isprintable()
    shown.encode()


@names
def test_rich_prints_it_as_it_is(name):
    file = io.StringIO()
    console = Console(file=file, width=500, force_terminal=True, emoji=False, highlight=False)
    table = Table('name', box=None, show_header=False, padding=0)
    table.add_row(escape.rich_markup(name))
    console.print(table)
    printed = re.sub(r'\x1b\[[\d;]*m', '', file.getvalue()).rstrip('\n')
    assert printed.rstrip() == escape.terminal(name).rstrip()


@names
def test_html_reads_it_back_as_text(name):
    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.text = [], ''

        def handle_starttag(self, tag, attributes):
            self.tags.append((tag, attributes))

        def handle_data(self, data):
            self.text += data

    reader = Reader()
    reader.feed(
        f'<p title="{escape.html(name)}" id=\'{escape.html(name)}\'>{escape.html(name)}</p>'
    )
    reader.close()
    shown = escape.terminal(name)
    assert reader.tags == [('p', [('title', shown), ('id', shown)])]
    assert reader.text == shown


@names
def test_latex_has_no_command_of_its_own(name):
    text = escape.latex(name)
    known = (
        r'\\(?:[&%$#_{}]|textasciitilde\{\}|textasciicircum\{\}|textbackslash\{\}'
        r'|textless\{\}|textgreater\{\}|textbar\{\})'
    )
    assert not set(re.sub(known, '', text)) & set('\\{}$&#^_%~\n\r')


def test_latex_keeps_our_own_signs():
    assert escape.latex('71.0 ± 1.4, —, 50 %†') == r'71.0 $\pm$ 1.4, ---, 50 \%$^\dagger$'


@names
def test_a_row_of_markdown_keeps_its_cells(name):
    for cell in (escape.markdown(name), escape.markdown_code(name)):
        assert '\n' not in cell
        # GitHub splits a row at every bar that no backslash takes away.
        row = f'| {cell} | 1 |'
        assert re.sub(r'\\.', '', row).count('|') == 3
        outside = re.sub(r'^`[^`]*`$|^<code>|</code>$', '', cell)
        bare = re.sub(r'\\.', '', outside)
        assert not set(bare) & set('`*[]<>~$&')


@pytest.mark.parametrize(
    ('text', 'written'),
    [
        ('gleam-l_k1', 'gleam-l_k1'),
        ('71.0 ± 1.4', '71.0 ± 1.4'),
        ('-3.2', '-3.2'),
        ('_x_', r'\_x\_'),
        ('# head', r'\# head'),
        ('- item', r'\- item'),
        ('1. item', r'1\. item'),
        ('---', r'\---'),
        ('http://evil', r'http:\//evil'),
        ('in 3. place', 'in 3. place'),
    ],
)
def test_markdown_has_no_more_backslashes_than_it_needs(text, written):
    assert escape.markdown(text) == written


@names
def test_no_spreadsheet_takes_a_cell_for_a_formula(name):
    file = io.StringIO()
    csv.writer(file).writerow([escape.csv_cell(name), 'next'])
    ((cell, after),) = csv.reader(io.StringIO(file.getvalue()))
    assert after == 'next'
    assert not re.match(r'\s*[=+\-@＝＋－＠]|[\t\r\n]', cell)  # noqa: RUF001
    assert cell in (escape.terminal(name), f"'{escape.terminal(name)}")
    assert cell.isprintable()


def test_numbers_stay_numbers_in_a_csv():
    assert escape.csv_cell(-1.5) == -1.5
    assert escape.csv_cell(None) is None


@names
def test_a_figure_shows_it_as_text(name):
    figure = Figure()
    text = figure.text(0.5, 0.5, escape.figure(name))
    FigureCanvasAgg(figure).draw()
    shown, mathematics = text._preprocess_math(text.get_text())
    assert not mathematics
    assert shown == escape.terminal(name)


@names
def test_a_file_stays_in_its_folder(name, tmp_path):
    safe = escape.file_name(name)
    assert re.fullmatch(r'\w[\w.-]*', safe, re.ASCII)
    (tmp_path / safe).touch()
    assert [path.name for path in tmp_path.iterdir()] == [safe]


def test_different_names_make_different_files():
    made = {
        escape.file_name(name) for name in [*HOSTILE, 'a b', 'a-b', 'é', 'è', '..', '.', 'A' * 300]
    }
    assert len(made) == len(HOSTILE) + 7
    assert max(map(len, made)) < 120
    assert escape.file_name('vtab-vit-b-tasks') == 'vtab-vit-b-tasks'
