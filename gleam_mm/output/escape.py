"""Text that came out of a file, a database or a command line, made safe: one function a medium.

Names of methods, datasets, studies and classes are what somebody wrote. None of them may become
markup, a formula, a command or an escape sequence where it is shown. In every medium a character
that does not print (a line break, an escape sequence's first byte, half of a surrogate pair, a mark
that turns the direction of text) is shown as Python writes it: ``\\n``, ``\\x1b``, ``\\udc80``.
"""

import hashlib
import html as _html
import io
import re
import sys
from typing import TypeVar

from rich.markup import escape as _escape_markup

Value = TypeVar('Value')

_LATEX = str.maketrans(
    {
        '&': r'\&',
        '%': r'\%',
        '$': r'\$',
        '#': r'\#',
        '_': r'\_',
        '{': r'\{',
        '}': r'\}',
        '~': r'\textasciitilde{}',
        '^': r'\textasciicircum{}',
        '\\': r'\textbackslash{}',
        '<': r'\textless{}',
        '>': r'\textgreater{}',
        '|': r'\textbar{}',
        '—': '---',
        '±': r'$\pm$',
        '†': r'$^\dagger$',
    }
)
# What means something anywhere in a line of GitHub's Markdown, and at its beginning only.
_MARKDOWN = re.compile(r'(?<!\w)_|_(?!\w)|(?<=:)/|(?<=www)\.|[\\`*\[\]<>|~$&]')
_MARKDOWN_BEGINNING = re.compile(r'^(\d*)([#+=.)-]+)(?=\s|$)')
_FORMULA = ('=', '+', '-', '@', '＝', '＋', '－', '＠')  # noqa: RUF001 - full-width ones count too
_LONGEST_NAME = 100


def terminal(text: object) -> str:
    """For a line of text in a terminal, a log or an error message.

    Where rich prints it, wrap it in ``rich.text.Text``, or take :func:`rich_markup`.
    """
    return ''.join(
        char if char.isprintable() else char.encode('unicode_escape').decode() for char in str(text)
    )


def unencodable_on_stdout() -> None:
    """Shows so, too, what the encoding of standard output lacks, as ``日`` in that of a Windows.

    Otherwise a name in it would end the program. Standard error does it by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a notebook or a test has may be none
        sys.stdout.reconfigure(errors='backslashreplace')


def rich_markup(text: object) -> str:
    """For texts in which rich looks for markup: cells of its tables, descriptions of its bars."""
    return _escape_markup(terminal(text))


def html(text: object) -> str:
    """For HTML: between tags, and in attributes with either kind of quotes."""
    return _html.escape(terminal(text))


def latex(text: object) -> str:
    """For LaTeX's text, and for its comments."""
    return terminal(text).translate(_LATEX)


def markdown(text: object) -> str:
    """For a line or a table's cell of GitHub's Markdown."""
    return _MARKDOWN_BEGINNING.sub(r'\1\\\2', _MARKDOWN.sub(r'\\\g<0>', terminal(text)))


def markdown_code(text: object) -> str:
    """A code span of Markdown, in a line or in a table's cell."""
    shown = terminal(text)
    if not shown.strip() or {'`', '|'} & set(shown):  # which code in tables cannot have
        return f'<code>{markdown(text)}</code>'
    return f'`{shown}`'


def csv_cell(value: Value) -> Value | str:
    """For a cell of a CSV file: no spreadsheet takes a text for a formula. Numbers stay."""
    if not isinstance(value, str):
        return value
    text = terminal(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def figure(text: object) -> str:
    """For texts of Matplotlib, which takes what stands between dollars for a formula."""
    return terminal(text).replace('$', r'\$')


def file_name(text: object) -> str:
    """For a part of a file's name, of an anchor or of a label.

    Returns:
        Letters, digits, dots, dashes and underscores of ASCII, beginning with none of the first
        two signs. Different texts give different names.
    """
    text = str(text)
    safe = re.sub(r'[^A-Za-z0-9_.-]+', '-', text).lstrip('.-')[:_LONGEST_NAME]
    if safe and safe == text:
        return safe
    digest = hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]
    return f'{safe}-{digest}' if safe else digest
