"""Tables and numbers as Markdown."""

from collections.abc import Iterable, Sequence

MISSING = '—'


def table(head: Sequence[str], body: Iterable[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A table.

    Args:
        head: Heads of the columns.
        body: Its rows.
        left: Heads of the columns of text; all others are of numbers, to the right.
    """
    rules = [':---' if name in left else '---:' for name in head]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (head, rules, *body))


def number(value: float | None, form: str = '.1f') -> str:
    """A number that may be missing."""
    return MISSING if value is None else format(value, form)


def count(value: float | None) -> str:
    """A whole number that may be missing, with commas."""
    return number(value, ',.0f')


def p_value(value: float | None) -> str:
    """A p value, with four decimals where they matter."""
    if value is None:
        return MISSING
    return '<0.0001' if value < 1e-4 else f'{value:.4f}' if value < 0.1 else f'{value:.2f}'


def names(methods: Iterable[str]) -> str:
    """Methods in a row."""
    return ', '.join(f'`{method}`' for method in methods)
