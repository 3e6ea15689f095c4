"""The blocks of code on the pages: each is run, or says beside it why it is not.

A block in backticks is Python, a config, or lines for a shell. What cannot be run here has a
comment in the line before it, which readers do not see:

    <!-- not run: it trains for an hour -->

Lines for a shell are read in any case: the program has to be there, and to know the flags.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ('*.md', 'docs/**/*.md', 'benchmarks/**/*.md', 'gleam_mm/**/*.md')
    for page in ROOT.glob(pattern)
    if page.name != 'CHANGELOG.md'
)

_BLOCK = re.compile(
    r'^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code.

    Attributes:
        page: Its page, from the root of the repository.
        line: The line of the page that its code begins in.
        language: ``python`` or ``bash``; nothing where it is no code.
        code: The code.
        reason: Why it is not run, if it is not.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def place(self) -> str:
        """Where it is, for messages and names of tests."""
        return f'{self.page}:{self.line}'

    @property
    def is_config(self) -> bool:
        """Whether it is a config or a file of a sweep: assignments alone."""
        return (
            self.language == 'python'
            and re.match(r'(#.*\n)*\w+ = ', self.code) is not None
            and (
                not re.search(
                    r'\b(import|gleam_mm\.|timm\.|\w+\.\w+\()', re.sub(r"'[^']*'", '', self.code)
                )
            )
        )


def blocks(page: str, text: str | None = None) -> list[Block]:
    """The blocks of a page.

    Args:
        page: Its path from the root of the repository.
        text: What is on it, if it is not to be read.
    """
    text = (ROOT / page).read_text('utf-8') if text is None else text
    return [
        Block(
            page,
            text[: match.start('code')].count('\n') + 1,
            match['language'],
            match['code'],
            match['reason'],
        )
        for match in _BLOCK.finditer(text)
    ]


def every_block(language: str) -> list[Block]:
    """All blocks of a language."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]
